"""Asking a source for instances by C-MOVE or C-GET, and the outcome. Runs in trio.

A C-MOVE is one request. A C-GET is as many as it takes: each proposes the presentation contexts in which the source may send, and
what did not come in one is asked for in the next. Each `Move` is ended by the no-progress deadline rather than by a time of its
own: by C-CANCEL first, and by abort only where that does not help. `Operations` ask for what a study misses; `capture` for one
instance that goes to whoever asked (`gateway.retrieve.arrivals`).
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import trio
from pydicom.dataset import Dataset

from gateway.association.dimse import statuses
from gateway.association.dimse.services import AssociationInfo, StorageService
from gateway.association.scu.offers import offers
from gateway.association.scu.query import identifier
from gateway.association.scu.requestor import Requestor, SubOperations, next_message_id
from gateway.association.upper.contexts import ProposedContext
from gateway.core.domain import Priority
from gateway.core.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    GatewayError,
    NoPresentationContext,
    PeerTimeout,
    PeerUnreachable,
    TlsFailed,
)
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import Pulse
from gateway.ledger.peers import learned
from gateway.retrieve.arrivals import Capture, Heard, settle
from gateway.retrieve.context import RetrieveContext, Source
from gateway.retrieve.recovery import AcceptanceOrder, End, Level, Method, Patience, Target, parts, remaining
from gateway.retrieve.source import LEAVE_S, Call, SourceAssociations
from gateway.retrieve.state import StudyState, Watch

log = get_logger()

CANCEL_GRACE_S = 10.0
"""The longest time that a source may take to end a stalled C-MOVE after C-CANCEL before the association is aborted."""

GET_QUIET_S = 30.0
"""The longest silence of a source in a C-GET once it has begun to send: it sends on the association on which it was asked."""

HEARTBEATS = 15
"""A source may answer pending without a count that changes, and without an instance, for so many no-progress times.

One that fetches from a tape does for a while; one that never ends must not hold us for ever.
"""

ANONYMOUS = "the source does not say for which C-MOVE it sends, so that what comes cannot be told from what others send"


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


def trouble(moved: Moved | None, watch: Watch, registration: Callable[[], str]) -> list[str]:
    """Return what went wrong with the last C-MOVE or C-GET, worst first; `registration` is what a source has to know of us."""
    if moved is None:
        return []
    if moved.method is Method.GET:
        return [f"C-GET: {moved.words()}" if moved.words() else ""]
    if moved.last is not None and moved.last.status == statuses.MOVE_DESTINATION_UNKNOWN:
        return [f"the source does not know us as a move destination (A801): register {registration()} in it"]
    if not (watch.arrivals or moved.end is End.REFUSED):
        return _nothing_came(moved, watch, registration)
    return [moved.words()]


def _nothing_came(moved: Moved, watch: Watch, registration: Callable[[], str]) -> list[str]:
    if watch.turned_away:
        who = f"a caller that is no source of ours was refused meanwhile ({watch.turned_away})"
        return [moved.words(), f"{who}: if it is this source, enter it so in [sources]"]
    if moved.end is not End.ANSWERED:
        return [moved.words()]
    return [moved.words(), f"nothing came: it may not know us as a move destination ({registration()}) or not reach us"]


def only_this_one(moved: Moved) -> bool:
    """Tell whether what broke a C-MOVE of a single instance may have been that instance."""
    return moved.end is End.BROKEN and not isinstance(moved.error, PeerUnreachable | PeerTimeout)


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


def move_identifier(target: Target) -> Dataset:
    """Return the C-MOVE or C-GET identifier of `target`: one unique key a level (PS3.4 §C.4.2.2.1, §C.4.3.2.1)."""
    keys = {"StudyInstanceUID": target.study}
    if target.level is not Level.STUDY:
        keys["SeriesInstanceUID"] = target.series
    if target.level is Level.IMAGE:
        keys["SOPInstanceUID"] = "\\".join(target.uids)
    return identifier(str(target.level), keys)


@dataclass(frozen=True)
class Operations:
    """Asks `source` for instances of the study of `state`."""

    context: RetrieveContext
    source: Source
    state: StudyState

    async def move(self, target: Target) -> Moved:
        """Carry out one C-MOVE of `target`."""
        message_id = self._message_id()
        asked, destination = move_identifier(target), self.context.ae_title
        move = Move(
            self.source.associations,
            lambda requestor: requestor.move(asked, destination_ae=destination, message_id=message_id),
            message_id=message_id,
            watch=self.state,
        )
        return await self._carried_out(move, message_id, target, Method.MOVE)

    async def get(self, target: Target, order: AcceptanceOrder) -> Moved:
        """Carry out the C-GETs of `target`, up to the first that the source does not carry out; return the last."""
        last, expectation = Moved(End.ANSWERED, method=Method.GET), self.state.expectation
        for part in parts(target, expectation):
            for number, contexts in enumerate(offers(part.sop_classes, self.source.syntaxes(order))):
                for left in remaining(part, self.state.received, target, expectation):
                    got = await self._get_once(left, contexts)
                    if number and isinstance(got.error, NoPresentationContext):
                        break  # of what is offered last a source may know nothing
                    last = got
                    if got.end is not End.ANSWERED:
                        return got
        return last

    async def _get_once(self, target: Target, contexts: tuple[ProposedContext, ...]) -> Moved:
        message_id, asked = self._message_id(), move_identifier(target)
        heard, table = Heard(self.context.storage()), self.source.table
        # It sends on this association as if it had called us.
        info = AssociationInfo(secrets.token_hex(6), table.ae_title, self.context.ae_title, table.host, source=self.source.name)
        get = Move(
            SourceAssociations(partial(self.source.connect, contexts), keeps=False),
            lambda requestor: requestor.get(asked, storage=heard, info=info, message_id=message_id),
            message_id=message_id,
            watch=self.state,
            heard=lambda: heard.last,
            begun_quiet_s=GET_QUIET_S,
        )
        return await self._carried_out(get, message_id, target, Method.GET)

    def _message_id(self) -> int:
        """Return a Message ID under which what comes is counted to the study."""
        message_id = next_message_id()
        self.context.arrivals.register(self.state, message_id)
        return message_id

    async def _carried_out(self, move: Move, message_id: int, target: Target, method: Method) -> Moved:
        before = self.state.arrivals
        quiet_s = self.source.table.progress_timeout_s
        if self.state.stalled and method is Method.GET:
            quiet_s = min(quiet_s, GET_QUIET_S)
        moved = replace(await move.result(self.source.retrieving, quiet_s), method=method)
        # Instances that came before the final response must not count as come after it.
        await self.context.caught_up()
        if moved.end is End.BUSY and self.state.arrivals > before:
            moved = replace(moved, end=End.ANSWERED)  # it sent some, and says nothing of how many: it was not too busy to begin
        log.debug(
            "move_ended",
            study=target.study,
            source=self.source.name,
            by=str(method),
            level=str(target.level),
            message_id=message_id,
            end=str(moved.end),
            status=None if moved.last is None else f"{moved.last.status:04X}",
            claimed=moved.claimed,
            failed=moved.failed,
            arrived=self.state.arrivals,
        )
        return moved


class _Capturing:
    """One instance being asked for."""

    def __init__(self, context: RetrieveContext, source: Source, target: Target, storage: StorageService) -> None:
        self._context = context
        self._source = source
        self._target = target
        self._heard = Heard(storage)
        self._signal = Pulse()
        self.watch = Watch(nudge=self._signal.give, flowed_at=source.flowed_at)
        self.capture = Capture(source.name, target.uids[0], next_message_id(), self._heard, self._came)

    def _came(self) -> None:
        """Note the arrival; on an association's thread."""
        self.watch.arrivals += 1
        self.watch.last_arrival = self.watch.last_new = time.monotonic()
        self.watch.nudge()

    async def run(self) -> Moved:
        """Ask, again and again while the source is too busy; return how the last C-MOVE ended."""
        captures, attempt = self._context.arrivals.captures, 0
        captures.open(self.capture)
        try:
            while True:
                attempt += 1
                moved = await self._once()
                pause = self._context.backoff.delay(attempt, self._context.jitter()) if moved.end is End.BUSY else None
                if pause is None or self.capture.came:
                    return moved
                await trio.sleep(pause)
        finally:
            captures.close(self.capture)

    async def _once(self) -> Moved:
        asked, destination = move_identifier(self._target), self._context.ae_title
        number, table = self.capture.message_id, self._source.table
        move = Move(
            self._source.associations,
            lambda requestor: requestor.move(asked, destination_ae=destination, message_id=number),
            message_id=number,
            watch=self.watch,
            heard=lambda: self._heard.last,
        )
        moved = await move.result(self._source.retrieving, table.progress_timeout_s)
        await settle(
            self.watch,
            self._signal,
            Patience(table.settle_s, table.progress_timeout_s),
            missing=lambda: 0 if self.capture.came else 1,
            claims_more=lambda: moved.claimed > 0,
            asynchronous=self._source.asynchronous,
            disproved=False,
        )
        return moved


async def capture(context: RetrieveContext, source: Source, target: Target, storage: StorageService) -> str:
    """Ask `source` for the one instance of `target`, and hand it to `storage`; return why it did not come, nothing where it did.

    It takes a slot of the source, after all else that waits for one. A source that does not say for which C-MOVE it sends cannot
    be asked so: what it sent is taken in, since it may be anybody's; that is learned, and no more is asked of it.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    if source.anonymous:
        return ANONYMOUS
    asking = _Capturing(context, source, target, storage)
    wanted = asking.capture
    async with source.moves.take(Priority.LOW), source.orders.take(source.order):
        moved = await asking.run()
    if wanted.came:
        return ""
    log.info("not_captured", sop_instance_uid=wanted.sop_instance_uid, source=source.name, end=str(moved.end))
    if wanted.anonymous and moved.end is End.ANSWERED and not moved.failed:
        source.anonymous = True
        await context.remember(source, learned.ANONYMOUS, "yes")
        return ANONYMOUS
    words = trouble(moved, asking.watch, partial(context.registration, source.table))
    return next(filter(None, words), "it did not come by C-MOVE")
