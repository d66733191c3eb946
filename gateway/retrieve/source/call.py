"""One association on a thread of its own, killed when the trio task that waits for it is cancelled.

`converse` is for short conversations (C-ECHO, C-FIND). `Move` is one C-MOVE or C-GET, which is ended by the no-progress deadline
rather than by a time of its own. Both are asked to stop by C-CANCEL first, and aborted only where that does not help.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from gateway.association.dimse import statuses
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.requestor import Requestor, SubOperations
from gateway.core.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    GatewayError,
    NoPresentationContext,
    TlsFailed,
)
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import ThreadEvent
from gateway.retrieve.arrivals.correlate import Watch
from gateway.retrieve.operations.method import Method
from gateway.retrieve.recovery import End
from gateway.retrieve.source.associations import SourceAssociations

T = TypeVar("T")
log = get_logger()

CANCEL_GRACE_S = 10.0
"""The longest time that a source may take to end a stalled C-MOVE after C-CANCEL before the association is aborted."""

GET_QUIET_S = 30.0
"""The longest silence of a source in a C-GET once it has begun to send: it sends on the association on which it was asked."""

HEARTBEATS = 15
"""A source may answer pending without a count that changes, and without an instance, for so many no-progress times.

One that fetches from a tape does for a while; one that never ends must not hold us for ever.
"""

LEAVE_S = 1.0
"""The longest time that a peer may take to end what is no longer waited for, after C-CANCEL, before it is aborted."""

JOIN_S = 5.0
"""The longest time that a killed association's thread may take to end before it is left to itself."""


class Call(Generic[T]):
    """An association and the work done on it. `run` is for one thread; `kill` and `cancel` may come from any."""

    def __init__(self, associations: SourceAssociations, work: Callable[[Requestor], T]) -> None:
        self._associations = associations
        self._work = work
        self._lock = threading.Lock()
        self._requestor: Requestor | None = None
        self._opening = KillSwitch()
        self._killed = False
        self._begun = False
        self._ended = ThreadEvent()

    def run(self) -> T:
        """Associate, or take an association that is open, and do the work. Blocks; raises what the work raises."""
        self._begun = True
        try:
            with self._opening.on_this_thread():
                return self._associations.ask(self._on, keep=lambda: not self._killed)
        finally:
            self._ended.set()

    def _on(self, requestor: Requestor) -> T:
        with self._lock:
            self._requestor = requestor
            if self._killed:
                requestor.kill()
        try:
            return self._work(requestor)
        finally:
            with self._lock:
                self._requestor = None

    def kill(self) -> None:
        """End the association at once, also one that is being opened."""
        with self._lock:
            self._killed = True
            if self._requestor is not None:
                self._requestor.kill()
        self._opening.kill()

    def cancel(self, message_id: int) -> None:
        """Have C-CANCEL sent; an association that is not open yet is killed."""
        with self._lock:
            requestor = self._requestor
            if requestor is not None:
                requestor.cancel(message_id)
        if requestor is None:
            self.kill()

    async def result(self, limiter: trio.CapacityLimiter) -> T:
        """Run on a thread and return the result; when cancelled, stop and wait a little for the thread to end.

        A thread that is only about to begin then ends by itself, once it has its association.
        """
        try:
            return await trio.to_thread.run_sync(self.run, limiter=limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            with self._lock:
                self._killed = True
            if self._begun:
                with trio.CancelScope(shield=True):
                    await self.stop()
            raise
        finally:
            self._associations.tidy()

    def leave(self) -> None:
        """Have C-CANCEL sent for what is under way, and let nothing more begin; kill an association that is not open yet."""
        with self._lock:
            self._killed = True
            requestor = self._requestor
            if requestor is not None:
                requestor.leave()
        if requestor is None:
            self.kill()

    async def stop(self) -> bool:
        """End the work as this kind of call does, and wait a little for its end; tell whether it came."""
        with trio.move_on_after(LEAVE_S):
            self.leave()
            await self._ended.wait()
            return True
        return await self.end()

    async def end(self) -> bool:
        """Abort the association, and wait a little for the end of the work; tell whether it came."""
        self.kill()
        with trio.move_on_after(JOIN_S):
            await self._ended.wait()
        return self._ended.is_set()


async def converse(associations: SourceAssociations, work: Callable[[Requestor], T], limiter: trio.CapacityLimiter) -> T:
    """Return what `work` returns for an association that nobody else uses meanwhile.

    Raises:
        AssociationError: what associating or the work raises.

    """
    return await Call(associations, work).result(limiter)


@dataclass(frozen=True)
class Moved:
    """The outcome of one C-MOVE or C-GET: the source's last answer (never believed), or what broke."""

    end: End
    last: SubOperations | None = None
    error: GatewayError | None = None
    method: Method = Method.MOVE

    @property
    def claimed(self) -> int:
        """The number of sub-operations that the source says it completed."""
        return 0 if self.last is None else (self.last.completed or 0) + (self.last.warning or 0)

    @property
    def failed(self) -> int:
        """The number of sub-operations that the source says failed."""
        return 0 if self.last is None else max(self.last.failed or 0, len(self.last.failed_uids))

    def words(self) -> str:
        """Return the answer for a person, without patient data."""
        if self.end is End.STALLED:
            return "the source stalled: no instance, and no response that told of one, within the no-progress time"
        if self.error is not None:
            return str(self.error)
        if self.last is None:
            return ""
        return f"the source answered {self.last.status:04X} (completed {self.last.completed or 0}, failed {self.failed})"


_BUSY = frozenset(
    {statuses.OUT_OF_RESOURCES, statuses.UNABLE_TO_COUNT_MATCHES, statuses.UNABLE_TO_SEND, statuses.RESOURCE_LIMITATION}
)
_NEVER = frozenset(
    {
        statuses.MOVE_DESTINATION_UNKNOWN,
        statuses.SOP_CLASS_NOT_SUPPORTED,
        statuses.NOT_AUTHORIZED,
        statuses.DUPLICATE_INVOCATION,
        statuses.UNRECOGNIZED_OPERATION,
        statuses.MISTYPED_ARGUMENT,
    }
)


def end_of(last: SubOperations) -> End:
    """Classify a final response (PS3.4 §C.4.2.1.5, §C.4.3.1.4).

    A702 also ends one whose sub-operations failed: only without any of them was it refused for being busy.
    """
    if last.status in _NEVER:
        return End.REFUSED
    tried = (last.completed or 0) + (last.failed or 0) + (last.warning or 0) + len(last.failed_uids)
    return End.BUSY if last.status in _BUSY and not tried else End.ANSWERED


class Move:
    """One C-MOVE or C-GET: run it, watch its progress, end it when nothing moves."""

    def __init__(
        self,
        associations: SourceAssociations,
        request: Callable[[Requestor], Iterator[SubOperations]],
        *,
        message_id: int,
        watch: Watch,
        heard: Callable[[], float] = lambda: 0.0,
        begun_quiet_s: float = math.inf,
    ) -> None:
        """`request` sends it under `message_id`. `heard` tells when something of an instance last came, in monotonic seconds.

        `begun_quiet_s` is how long it may be silent after that.
        """
        self._request = request
        self._message_id = message_id
        self._watch = watch
        self._heard = heard
        self._last: SubOperations | None = None
        self._last_response = self._last_change = time.monotonic()
        self._stalled = False
        self._begun_quiet_s = begun_quiet_s
        self._call = _MoveCall(associations, self._ask, message_id)

    async def result(self, limiter: trio.CapacityLimiter, progress_timeout_s: float) -> Moved:
        """Carry it out; returns, never raises an AssociationError. When cancelled: C-CANCEL, then abort."""
        self._last_response = self._last_change = time.monotonic()
        moved = Moved(End.BROKEN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_progress, progress_timeout_s, nursery.cancel_scope)
            try:
                await self._call.result(limiter)
                moved = self._answered()
            except AssociationError as error:
                moved = self._broken(error)
            nursery.cancel_scope.cancel()
        return moved

    def _answered(self) -> Moved:
        if self._last is None or not self._last.final:
            return self._broken(AssociationAborted("it ended without a final response"))
        return Moved(End.STALLED if self._stalled else end_of(self._last), self._last)

    def _broken(self, error: AssociationError) -> Moved:
        if self._stalled:
            return Moved(End.STALLED, self._last, error)
        permanent = isinstance(error, NoPresentationContext | TlsFailed) or (
            isinstance(error, AssociationRejected) and not error.retryable
        )
        return Moved(End.REFUSED if permanent else End.BROKEN, self._last, error)

    def _ask(self, requestor: Requestor) -> None:
        for response in self._request(requestor):
            changed = self._last is None or self._last != response
            self._last, self._last_response = response, time.monotonic()
            if changed:
                self._last_change = self._last_response

    async def _watch_progress(self, progress_timeout_s: float, abandon: trio.CancelScope) -> None:
        while True:
            left = self._left(progress_timeout_s)
            if left <= 0:
                break
            await trio.sleep(min(left, self._begun_quiet_s))  # it may have begun meanwhile
        self._stalled = True
        log.warning("move_stalled", message_id=self._message_id, retrieval=self._watch.retrieval_id, quiet_s=progress_timeout_s)
        self._call.grace_s = min(CANCEL_GRACE_S, progress_timeout_s)
        if not await self._call.stop():
            abandon.cancel()

    def _left(self, progress_timeout_s: float) -> float:
        # An instance that takes long, be it because we hold the source back, is no silence.
        heard = self._heard()
        came = max(self._watch.last_arrival, self._watch.flowed_at(), heard)
        quiet = max(self._last_response, came) + (min(progress_timeout_s, self._begun_quiet_s) if heard else progress_timeout_s)
        return min(quiet, max(self._last_change, came) + HEARTBEATS * progress_timeout_s) - time.monotonic()


class _MoveCall(Call[None]):
    """A call that is stopped by C-CANCEL, and by abort only when the source does not end it then."""

    def __init__(self, associations: SourceAssociations, work: Callable[[Requestor], None], message_id: int) -> None:
        super().__init__(associations, work)
        self._message_id = message_id
        self.grace_s = LEAVE_S

    async def stop(self) -> bool:
        with trio.move_on_after(self.grace_s):
            self.cancel(self._message_id)
            await self._ended.wait()
            return True
        return await self.end()
