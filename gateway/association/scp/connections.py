"""The connections of an acceptor: how many there may be, who has to make room, and how they end together. Thread-safe.

A connection is in its handshake until its A-ASSOCIATE-RQ is accepted, then an association that is idle or busy with a message,
then ending.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from gateway.association.dimse.services import Limits
from gateway.association.upper.stream import Stream


class Phase(Enum):
    """The phase of a connection."""

    HANDSHAKE = auto()
    IDLE = auto()
    BUSY = auto()
    ENDING = auto()
    """Over; the peer is given a moment to read why. It counts as little as a handshake."""


_NO_ASSOCIATION = (Phase.HANDSHAKE, Phase.ENDING)


@dataclass(eq=False, slots=True)
class Connection:
    """One connection, in the order in which they came; `phase` and `source` change under the registry's lock only."""

    stream: Stream
    address: str
    number: int
    phase: Phase = Phase.HANDSHAKE
    source: str | None = None
    """The name in ``[sources]`` of who associates by it."""

    displaced: bool = False
    """It had to make room for another and is on its way out."""


def crowded_out(handshakes: Iterable[Connection]) -> Connection:
    """Return the connection in its handshake that makes room for a new one: the oldest of the address that has the most.

    So whoever opens connections and says nothing displaces itself, and a peer that does what it came for is done before its turn.
    """
    candidates = list(handshakes)
    crowd = Counter(connection.address for connection in candidates)
    return min(candidates, key=lambda connection: (-crowd[connection.address], connection.number))


class Registry:
    """Every open connection, with its phase."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._condition = threading.Condition()
        self._connections: set[Connection] = set()
        self._count = 0
        self._ending = False

    @property
    def associations(self) -> int:
        """The number of connections that are associations."""
        with self._condition:
            return self._associations()

    def add(self, stream: Stream, address: str) -> Connection | None:
        """Take a new connection into its handshake; None when the acceptor is ending. Another may have to make room for it."""
        with self._condition:
            if self._ending:
                return None
            others = [each for each in self._connections if each.phase in _NO_ASSOCIATION and not each.displaced]
            if len(others) >= self._limits.max_handshakes:
                victim = crowded_out(others)
                victim.displaced = True
                victim.stream.kill()
            self._count += 1
            connection = Connection(stream, address, self._count)
            self._connections.add(connection)
            return connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        with self._condition:
            self._connections.discard(connection)
            self._condition.notify_all()

    def associate(self, connection: Connection, source: str | None = None, limit: int | None = None) -> bool:
        """Make `connection` an association of `source`.

        False when there are as many as there may be, all together or, with `limit`, of `source`, or the acceptor is ending.
        """
        with self._condition:
            if self._ending or self._associations() >= self._limits.max_associations:
                return False
            if limit is not None and self._associations(source) >= limit:
                return False
            connection.phase, connection.source = Phase.IDLE, source
            return True

    def begin(self, connection: Connection) -> bool:
        """Note that `connection` is busy with a message; False when it must not begin one any more."""
        with self._condition:
            if self._ending:
                return False
            connection.phase = Phase.BUSY
            return True

    def finish(self, connection: Connection) -> bool:
        """Note that `connection` has answered its message; False when it was the last one that it may have."""
        with self._condition:
            connection.phase = Phase.IDLE
            return not self._ending

    def end(self, connection: Connection) -> None:
        """Note that `connection` is no association any more, or never became one."""
        with self._condition:
            connection.phase = Phase.ENDING

    def drain(self, timeout_s: float) -> bool:
        """End handshakes and idle associations now, others after their message, all by `timeout_s`; tell if none was cut off."""
        with self._condition:
            self._ending = True
            for connection in self._connections:
                if connection.phase is Phase.HANDSHAKE:
                    connection.stream.kill()
                elif connection.phase is Phase.IDLE:
                    connection.stream.wake()
            if self._gone(timeout_s):
                return True
            cut_off = [connection for connection in self._connections if connection.phase is Phase.BUSY]
            for connection in self._connections:
                connection.stream.kill()
            return not cut_off

    def kill_all(self) -> None:
        """End every connection at once."""
        with self._condition:
            self._ending = True
            for connection in self._connections:
                connection.stream.kill()

    def _associations(self, source: str | None = None) -> int:
        """Return how many connections are associations, of `source` where one is given."""
        return sum(
            connection.phase not in _NO_ASSOCIATION and source in {None, connection.source} for connection in self._connections
        )

    def _gone(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._connections and (remaining := deadline - time.monotonic()) > 0:
            self._condition.wait(remaining)
        return not self._connections
