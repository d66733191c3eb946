"""Single instances asked of a source by C-MOVE that go to whoever asked, and nowhere else.

Contract. An instance is captured that comes as the sub-operation of a capture's own C-MOVE: with our AE title and its Message ID as
Move Originator (0000,1030), (0000,1031), under the SOP Instance UID that was asked for, from that source (PS3.7 §9.3.1.1). Only all
of that together: the same instance from anybody else, of another C-MOVE, or of none, is taken in as ever. A captured one is not
spooled, recorded, routed or counted; it is answered 0000 once it is written where it was wanted, which need not be durable, for
the source has it and nobody is owed it. An instance for a capture that is over is refused, so that nobody takes it for kept.

Captures are in memory only: a process that ends, however it ends, leaves none. Called on association threads; no more than a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.association.dimse.services import AssociationInfo, Reception, StorageService, StoreRequest
from gateway.association.dimse.statuses import CANNOT_UNDERSTAND
from gateway.core.errors import Refusal

REMEMBERED = 1000
"""So many captures that are over are known, so that what comes late for them is refused."""


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
