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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import trio

from gateway.association.dimse.services import AssociationInfo, Reception, StorageService, StoreRequest
from gateway.association.dimse.statuses import CANNOT_UNDERSTAND
from gateway.core.domain import Provenance, Purpose
from gateway.core.errors import Refusal
from gateway.core.tasks.wake_ups import Pulse
from gateway.retrieve.recovery import Patience
from gateway.retrieve.state import StudyState, Watch
from gateway.retrieve.verdict import Expectation

REMEMBERED = 1000
"""So many captures that are over are known, so that what comes late for them is refused."""


class Arrivals:
    """The running retrievals and the Message IDs of their C-MOVEs; `captures` are those whose instances are nobody else's."""

    def __init__(self, ae_title: str) -> None:
        """Watch arrivals for C-MOVEs that `ae_title` requests."""
        self.captures = Captures(ae_title)
        self._ae_title = ae_title
        self._lock = threading.Lock()
        self._open: dict[int, StudyState] = {}
        # Message IDs wrap at 65,535 and outlive the retrieval, since sub-operations may come late.
        self._moves: dict[int, tuple[Purpose, str]] = {}

    def open(self, state: StudyState) -> None:
        """Count arrivals to `state` from now on."""
        with self._lock:
            self._open[state.retrieval_id] = state

    def close(self, state: StudyState) -> None:
        """Count arrivals to `state` only by Message ID from now on."""
        with self._lock:
            self._open.pop(state.retrieval_id, None)

    def expect(self, state: StudyState, expectation: Expectation, skipped: Collection[str] = ()) -> None:
        """Count what is listed and not skipped to `state` also without a Message ID."""
        with self._lock:
            state.expect(expectation, skipped)

    def note(self, state: StudyState, came: Mapping[str, int]) -> None:
        """Count what came in an earlier run: UIDs with lengths in bytes."""
        with self._lock:
            for uid, size in came.items():
                state.note(uid, size)

    def forget(self, state: StudyState, uids: Collection[str]) -> None:
        """Take instances that came for ones that did not."""
        with self._lock:
            state.forget(uids)

    def register(self, state: StudyState, message_id: int) -> None:
        """Count to `state` what comes under `message_id`. Before the C-MOVE goes out."""
        with self._lock:
            self._moves[message_id] = (state.purpose, state.source)
        self.captures.forget(message_id)

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
        """Return what an instance came for: by its C-MOVE, else by the expected UIDs, else None (unsolicited).

        A Message ID may be a stale one of an earlier process; so an instance that its retrieval does not expect and another
        one does is the other one's.
        """
        with self._lock:
            move = self._moved(provenance)
            own = self._open.get(move[0].retrieval_id) if move else None
            if move and own and own.expects(sop_instance_uid):
                return move[0]
            for state in reversed(self._open.values()):
                if self._may_send(provenance, state.source) and state.expects(sop_instance_uid):
                    return state.purpose
            return move[0] if move and self._may_send(provenance, move[1]) else None

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None:
        """Note a durable instance for everyone who waits for it; unsolicited ones are signs of life where no UID is known."""
        with self._lock:
            now, waiting = time.monotonic(), list[StudyState]()
            for state in self._open.values():
                counts = state.retrieval_id == retrieval_id or state.expects(sop_instance_uid)
                if counts or (retrieval_id is None and not state.awaited):
                    waiting.append(state)
                    state.last_arrival = now
                if counts:
                    state.note(sop_instance_uid, size_bytes)
        for state in waiting:
            state.nudge()

    def turned_away(self, calling_ae: str, called_ae: str, address: str) -> None:
        """Note a caller that was refused while retrievals run."""
        with self._lock:
            for state in self._open.values():
                state.turned_away = f"AE title {calling_ae!r} from {address}, calling {called_ae!r}"

    def _moved(self, provenance: Provenance) -> tuple[Purpose, str] | None:
        if provenance.move_originator_message_id is None or (provenance.move_originator_ae or "").strip() != self._ae_title:
            return None
        return self._moves.get(provenance.move_originator_message_id)

    @staticmethod
    def _may_send(provenance: Provenance, source: str) -> bool:
        return provenance.source is None or provenance.source == source


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

    @property
    def known(self) -> bool:
        """Tell whether anything is captured, or was lately. From any thread, without a lock."""
        return bool(self._known or self._open)

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
        # Nearly always nothing is captured: an ordinary instance pays for a look, and for no lock.
        capture = self.captures.take(association, request) if self.captures.known else None
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
