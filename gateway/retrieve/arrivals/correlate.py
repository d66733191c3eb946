"""The retrieval that an arriving instance belongs to, and what has arrived so far: in memory, behind one lock.

Association threads call `correlate` before an instance is recorded and `arrived` after; both only look up and note. The
numbers here are hints for pace and progress: the tally is made from the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from gateway.core.domain import Priority, Provenance, Purpose
from gateway.retrieve.single.captures import Captures


@dataclass(eq=False)
class Watch:
    """A running retrieval as arrivals see it. Changed under the lock of `Arrivals`; its numbers may be read without."""

    retrieval_id: int
    source: str
    nudge: Callable[[], None]
    destinations: tuple[str, ...] | None = None
    """The destinations of what comes for it, whatever the routes say; None is where they lead."""
    priority: Priority = Priority.NORMAL
    expected: frozenset[str] = frozenset()
    received: set[str] = field(default_factory=set)
    present: int = 0
    """The number of the expected instances that arrived; of any instances where none are known by UID."""
    bytes: int = 0
    arrivals: int = 0
    last_arrival: float = 0.0
    last_new: float = 0.0
    """The time when an instance last came that had not come before; both in monotonic seconds."""
    flowed_at: Callable[[], float] = lambda: 0.0
    """The time when its source last sent anything, be it a part of an instance: known where it has a `max_rate`, else 0.0."""
    turned_away: str = ""
    """The last caller that was refused meanwhile, in words."""

    @property
    def purpose(self) -> Purpose:
        """The purpose of an instance that is counted to it."""
        return Purpose(self.retrieval_id, self.destinations, self.priority)

    def expect(self, uids: Collection[str]) -> None:
        """Set what is expected, and count again what of it arrived."""
        self.expected = frozenset(uids)
        self.present = len(self.expected & self.received) if self.expected else len(self.received)

    def outstanding(self, count: int | None) -> int | None:
        """Return how many of what is expected have not arrived; where no UIDs are known, of the source's `count`."""
        if self.expected:
            return len(self.expected) - self.present
        return None if count is None else max(0, count - self.present)

    def note(self, sop_instance_uid: str, size_bytes: int) -> None:
        """Count an arrival."""
        self.arrivals += 1
        if sop_instance_uid not in self.received:
            self.received.add(sop_instance_uid)
            self.bytes += size_bytes
            self.last_new = time.monotonic()
            self.present += not self.expected or sop_instance_uid in self.expected


class Arrivals:
    """The running retrievals and the Message IDs of their C-MOVEs; `captures` are those whose instances are nobody else's."""

    def __init__(self, ae_title: str) -> None:
        """Watch arrivals for C-MOVEs that `ae_title` requests."""
        self.captures = Captures(ae_title)
        self._ae_title = ae_title
        self._lock = threading.Lock()
        self._open: dict[int, Watch] = {}
        # Message IDs wrap at 65,535 and outlive the retrieval, since sub-operations may come late.
        self._moves: dict[int, tuple[Purpose, str]] = {}

    def open(self, watch: Watch) -> None:
        """Count arrivals to `watch` from now on."""
        with self._lock:
            self._open[watch.retrieval_id] = watch

    def close(self, watch: Watch) -> None:
        """Count arrivals to `watch` only by Message ID from now on."""
        with self._lock:
            self._open.pop(watch.retrieval_id, None)

    def expect(self, watch: Watch, uids: Collection[str]) -> None:
        """Count instances of these UIDs to `watch` also without a Message ID."""
        with self._lock:
            watch.expect(uids)

    def forget(self, watch: Watch, uids: Collection[str]) -> None:
        """Take instances that came for ones that did not: they were not what was asked for, and are asked for again."""
        with self._lock:
            watch.received.difference_update(uids)
            watch.expect(watch.expected)

    def register(self, watch: Watch, message_id: int) -> None:
        """Count to `watch` what comes under `message_id`. Before the C-MOVE goes out."""
        with self._lock:
            self._moves[message_id] = (watch.purpose, watch.source)
        self.captures.forget(message_id)

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
        """Return what an instance came for: by its C-MOVE, else by the expected UIDs, else None (unsolicited).

        A Message ID may be a stale one of an earlier process; so an instance that its retrieval does not expect and another
        one does is the other one's.
        """
        with self._lock:
            move = self._moved(provenance)
            if move and self._expects(self._open.get(move[0].retrieval_id), sop_instance_uid):
                return move[0]
            wanted = [watch for watch in self._open.values() if self._may_send(provenance, watch.source)]
            found = next((watch for watch in reversed(wanted) if self._expects(watch, sop_instance_uid)), None)
            if found:
                return found.purpose
            return move[0] if move and self._may_send(provenance, move[1]) else None

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None:
        """Note a durable instance for everyone who waits for it; unsolicited ones are signs of life where no UID is known."""
        with self._lock:
            waiting = [watch for watch in self._open.values() if self._concerns(watch, retrieval_id, sop_instance_uid)]
            now = time.monotonic()
            for watch in waiting:
                watch.last_arrival = now
                if watch.retrieval_id == retrieval_id or sop_instance_uid in watch.expected:
                    watch.note(sop_instance_uid, size_bytes)
        for watch in waiting:
            watch.nudge()

    def turned_away(self, calling_ae: str, called_ae: str, address: str) -> None:
        """Note a caller that was refused while retrievals run."""
        with self._lock:
            for watch in self._open.values():
                watch.turned_away = f"AE title {calling_ae!r} from {address}, calling {called_ae!r}"

    def _moved(self, provenance: Provenance) -> tuple[Purpose, str] | None:
        if provenance.move_originator_message_id is None or (provenance.move_originator_ae or "").strip() != self._ae_title:
            return None
        return self._moves.get(provenance.move_originator_message_id)

    @staticmethod
    def _may_send(provenance: Provenance, source: str) -> bool:
        return provenance.source is None or provenance.source == source

    @staticmethod
    def _expects(watch: Watch | None, sop_instance_uid: str) -> bool:
        return watch is not None and sop_instance_uid in watch.expected

    @staticmethod
    def _concerns(watch: Watch, retrieval_id: int | None, sop_instance_uid: str) -> bool:
        if watch.retrieval_id == retrieval_id or sop_instance_uid in watch.expected:
            return True
        return retrieval_id is None and not watch.expected
