"""To which retrieval or capture an arriving instance belongs, what has arrived so far, and waiting until no more comes.

Association threads call `Arrivals.correlate` before an instance is recorded and `arrived` after; both only look up and note, behind
one lock. The numbers here are hints for pace and progress: the tally is made from the ledger.

Captures. A single instance that somebody asked a source for by C-MOVE goes to whoever asked, and nowhere else. It is one that
comes as the sub-operation of a capture's own C-MOVE: with our AE title and its Message ID as Move Originator (0000,1030),
(0000,1031), under the SOP Instance UID that was asked for, from that source (PS3.7 §9.3.1.1). Only all of that together: the same
instance from anybody else, of another C-MOVE, or of none, is taken in as ever. A captured one is not spooled, recorded, routed or
counted; it is answered 0000 once it is written where it was wanted, which need not be durable, for the source has it and nobody is
owed it. An instance for a capture that is over is refused, so that nobody takes it for kept. Captures are in memory only: a process
that ends, however it ends, leaves none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import trio

from gateway.association.dimse.services import AssociationInfo, Reception, StorageService, StoreRequest
from gateway.association.dimse.statuses import CANNOT_UNDERSTAND
from gateway.core.domain import Priority, Provenance, Purpose
from gateway.core.errors import Refusal
from gateway.core.tasks.wake_ups import Pulse
from gateway.retrieve.recovery import Patience

REMEMBERED = 1000
"""So many captures that are over are known, so that what comes late for them is refused."""


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


@dataclass(eq=False)
class Capture:
    """One instance that is asked for. Changed under the lock of `Captures`; `came` may be read without."""

    source: str
    sop_instance_uid: str
    message_id: int
    storage: StorageService
    nudge: Callable[[], None] = lambda: None
    came: bool = False
    taken: bool = False
    """It is on its way in, or came."""
    over: bool = False
    anonymous: bool = False
    """While it was asked for, its source sent it without saying that this is why."""


class Captures:
    """The captures of a process by Message ID."""

    def __init__(self, ae_title: str) -> None:
        """Know what comes for the C-MOVEs that `ae_title` requests."""
        self._ae_title = ae_title
        self._lock = threading.Lock()
        self._known: dict[int, Capture] = {}
        self._open: set[Capture] = set()

    def open(self, capture: Capture) -> None:
        """Take what comes for `capture` from now on. Before its C-MOVE goes out."""
        with self._lock:
            self._known[capture.message_id] = capture
            self._open.add(capture)
            for message_id in [one.message_id for one in self._known.values() if one.over][:-REMEMBERED]:
                del self._known[message_id]

    def forget(self, message_id: int) -> None:
        """Another C-MOVE has this Message ID from now on."""
        with self._lock:
            self._known.pop(message_id, None)

    def close(self, capture: Capture) -> None:
        """Refuse what still comes for `capture`."""
        with self._lock:
            capture.over = True
            self._open.discard(capture)

    def take(self, association: AssociationInfo, request: StoreRequest) -> Capture | None:
        """Return the capture that a C-STORE request is for; None where it is anything else.

        Raises:
            Refusal: C000, it came already or is not wanted any more.
        """
        ours = (request.move_originator_ae or "").strip() == self._ae_title
        with self._lock:
            capture = self._known.get(request.move_originator_message_id or 0) if ours else None
            if capture is None or not self._is_of(capture, association, request.sop_instance_uid):
                self._suspect(association, request.sop_instance_uid)
                return None
            if capture.taken or capture.over:
                raise Refusal(CANNOT_UNDERSTAND, "it was asked for once")
            capture.taken = True
            return capture

    def ended(self, capture: Capture, *, came: bool) -> None:
        """Note that what was taken is there, or broke off: then it may come again."""
        with self._lock:
            capture.came, capture.taken = came, came

    def _suspect(self, association: AssociationInfo, uid: str) -> None:
        for capture in self._open:
            if self._is_of(capture, association, uid):
                capture.anonymous = True

    @staticmethod
    def _is_of(capture: Capture, association: AssociationInfo, uid: str) -> bool:
        return uid == capture.sop_instance_uid and association.source in {None, capture.source}


@dataclass(frozen=True)
class Capturing:
    """A storage service that hands over what is captured, and everything else to `storage`."""

    captures: Captures
    storage: StorageService

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Reception:
        """Begin to take one instance; see `StorageService`."""
        capture = self.captures.take(association, request)
        if capture is None:
            return self.storage.receive(association, request)
        try:
            return _Captured(self.captures, capture, capture.storage.receive(association, request))
        except BaseException:
            self.captures.ended(capture, came=False)
            raise


@dataclass(frozen=True)
class _Captured:
    captures: Captures
    capture: Capture
    inner: Reception

    def write(self, fragments: Sequence[memoryview]) -> None:
        self.inner.write(fragments)

    def commit(self) -> int:
        try:
            status = self.inner.commit()
        except BaseException:
            self.captures.ended(self.capture, came=False)
            raise
        self.captures.ended(self.capture, came=True)
        self.capture.nudge()
        return status

    def discard(self) -> None:
        self.inner.discard()
        self.captures.ended(self.capture, came=False)


class Heard:
    """A storage service that notes in `last` (monotonic seconds) when something of an instance came: a long one takes its time."""

    def __init__(self, storage: StorageService) -> None:
        self.last = 0.0
        self._storage = storage

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Reception:
        """Begin to take one instance; see `StorageService`."""
        self.last = time.monotonic()
        return _Noted(self, self._storage.receive(association, request))


class _Noted:
    def __init__(self, heard: Heard, reception: Reception) -> None:
        self._heard = heard
        self._reception = reception
        self.commit = reception.commit
        self.discard = reception.discard

    def write(self, fragments: Sequence[memoryview]) -> None:
        self._heard.last = time.monotonic()
        self._reception.write(fragments)


@dataclass(frozen=True)
class Settled:
    """The arrivals after the final response; `in_vain` when the source had claimed more and it was waited for to the end."""

    arrived: bool
    in_vain: bool


async def settle(
    watch: Watch,
    signal: Pulse,
    patience: Patience,
    *,
    missing: Callable[[], int | None],
    claims_more: Callable[[], bool],
    asynchronous: bool,
    disproved: bool,
) -> Settled:
    """Wait until the arrivals at `watch` are quiet, or all came; a source that answers before it sends is found out here."""
    began, before = time.monotonic(), watch.arrivals
    waited_in_vain = False
    with signal.listening():
        while True:
            now = time.monotonic()
            pause = patience.pause(
                missing=missing(),
                claims_more=claims_more(),
                asynchronous=asynchronous,
                disproved=disproved,
                quiet_s=now - max(began, watch.last_arrival),
                fruitless_s=now - max(began, watch.last_new),
            )
            if pause <= 0:
                break
            with trio.move_on_after(pause) as scope:
                await signal.wait()
            waited_in_vain = scope.cancelled_caught
    return Settled(watch.arrivals > before, waited_in_vain and claims_more())
