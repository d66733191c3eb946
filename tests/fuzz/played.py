"""A connection whose peer has said everything already: a stream in memory, for targets that are run a thousand times a second."""

from __future__ import annotations

import random
import zlib

from gateway.association.upper.stream import Stream
from gateway.core.errors import ConnectionLost, PeerTimeout


class Played(Stream):
    """A `Stream` that gives `data` in portions which depend on `data` only, then ends; `sent` is what was sent."""

    def __init__(self, data: bytes) -> None:
        self.peer = "127.0.0.1:1"
        self.woken = False
        self.sent = bytearray()
        self.closed = False
        self._left = memoryview(data)
        chance = random.Random(zlib.crc32(data))
        self._portions = chance.choice(((65536,), (1,), (6, 12, 100), (1000, 4096, 7), (13, 200, 65536)))
        self._chance = chance

    def receive_into(self, view: memoryview, deadline: float) -> int:
        if not self._left:
            raise ConnectionLost("the peer closed the connection", peer=self.peer)
        count = min(len(self._left), len(view), self._chance.choice(self._portions))
        assert count, "asked to receive into nothing"
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def send(self, data: memoryview | bytes | bytearray) -> None:
        assert not self.closed, "sent on a closed connection"
        self.sent += data

    def farewell(self, last_words: bytes, limit_s: float) -> None:
        self.send(last_words)
        self.close()

    @property
    def tls(self) -> bool:
        return False

    def certificate_names(self) -> tuple[str, ...] | None:
        return None

    def stirs(self) -> bool:
        return True

    def hasten(self) -> None:
        """Nothing is ever late."""

    def fileno(self) -> int:
        return -1

    def kill(self) -> None:
        """There is nobody to wake."""

    def wake(self) -> None:
        """There is nobody to wake."""

    def close(self) -> None:
        self.closed = True


class Answering(Played):
    """The stream of an acceptor: the first PDU answers the association, the rest comes once something was asked on it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        first = 6 + int.from_bytes(data[2:6], "big")
        self._later = self._left[first:]
        self._left = self._left[:first]
        self._sent_pdus = 0

    def send(self, data: memoryview | bytes | bytearray) -> None:
        super().send(data)
        self._sent_pdus += 1
        if self._sent_pdus > 1 and self._later:
            self._left, self._later = self._later, self._later[:0]

    def receive_into(self, view: memoryview, deadline: float) -> int:
        if self._later and not self._left:
            raise PeerTimeout("nothing was asked", peer=self.peer)
        return super().receive_into(view, deadline)

    def stirs(self) -> bool:
        return bool(self._left) or not self._later
