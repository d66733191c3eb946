"""One source as all retrievals share it: its associations, what it is asked by C-FIND, its move slots, its acceptance orders.

Runs in trio; what is asked is asked on a thread, and that thread's association is killed when the task that waits is cancelled.
A command which only asks needs no more than this module.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

import trio

from gateway.association.scu import query
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.pool import AssociationPool
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.association.scu.requestor import Requestor, associate
from gateway.association.upper.contexts import ProposedContext
from gateway.config.settings import Settings, SourceTable, TlsTable
from gateway.core.domain import Priority
from gateway.core.errors import UsageError, require_known
from gateway.core.tasks.wake_ups import ThreadEvent
from gateway.core.throttle import Throttle

if TYPE_CHECKING:
    from gateway.retrieve.recovery import AcceptanceOrder

T = TypeVar("T")

KEEP_S = 2.0
"""The time an association is kept: far less than any peer waits before it ends an idle one, and few peers take many at a time."""

LEAVE_S = 1.0
"""The longest time that a peer may take to end what is no longer waited for, after C-CANCEL, before it is aborted."""

JOIN_S = 5.0
"""The longest time that a killed association's thread may take to end before it is left to itself."""

QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]

Connect = Callable[[tuple[ProposedContext, ...]], Requestor]
"""Opens an association on which these presentation contexts are proposed."""


def connecting(
    settings: Settings, source: str, tls: Callable[[TlsTable], ssl.SSLContext], throttle: Throttle | None = None
) -> Connect:
    """Return what opens associations with a source; `tls` makes a requestor's context, `throttle` is for what is received.

    Raises:
        UsageError: no such source, or it has no port.
    """
    require_known("source", [source], settings.sources)
    table = settings.sources[source]
    if table.port is None:
        raise UsageError(f"source {source!r} has no port: add it to [sources.{source}], so that it can be asked")
    return partial(_associate, settings, table, tls, throttle)


def _associate(
    settings: Settings,
    table: SourceTable,
    tls: Callable[[TlsTable], ssl.SSLContext],
    throttle: Throttle | None,
    contexts: tuple[ProposedContext, ...],
) -> Requestor:
    remote = remote_of(table, None if table.tls is None else tls(table.tls), receiving=throttle)
    longest = settings.listen.max_pdu_bytes
    return associate(remote, settings.gateway.ae_title, contexts, deadlines=deadlines_of(table), max_pdu_bytes=longest)


class SourceAssociations(AssociationPool):
    """An `AssociationPool` that is emptied in time, wherever trio runs."""

    _tidying = False

    def tidy(self) -> None:
        """See to it that what is kept is released in time."""
        if not self.empty and not self._tidying:
            self._tidying = True
            trio.lowlevel.spawn_system_task(self._release_in_time)

    async def _release_in_time(self) -> None:
        # A system task: it ends with the run, and then what is still kept is aborted.
        try:
            while not self.empty:
                await trio.sleep(KEEP_S)
                for requestor in self.taken_out(idle_s=KEEP_S):
                    await trio.to_thread.run_sync(requestor.release)
        finally:
            self._tidying = False
            for requestor in self.taken_out():
                requestor.abort()


class Call(Generic[T]):
    """An association and the work done on it. `run` is for one thread; `kill` and `cancel` may come from any."""

    def __init__(self, associations: SourceAssociations, work: Callable[[Requestor], T]) -> None:
        self._associations = associations
        self._work = work
        self._lock = threading.Lock()
        self._requestor: Requestor | None = None
        self._switch = KillSwitch()
        self._killed = False
        self._begun = False
        self._ended = ThreadEvent()

    def run(self) -> T:
        """Associate, or take an association that is open, and do the work. Blocks; raises what the work raises."""
        self._begun = True
        try:
            with self._switch.on_this_thread():
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
        self._killed = True
        self._switch.kill()

    def cancel(self, message_id: int) -> None:
        """Have C-CANCEL sent; an association that is not open yet is killed."""
        self._tell(lambda requestor: requestor.cancel(message_id))

    def leave(self) -> None:
        """Have C-CANCEL sent for what is under way, and let nothing more begin; kill an association that is not open yet."""
        self._killed = True
        self._tell(Requestor.leave)

    def _tell(self, what: Callable[[Requestor], None]) -> None:
        with self._lock:
            requestor = self._requestor
            if requestor is not None:
                what(requestor)
        if requestor is None:
            self.kill()

    async def result(self, limiter: trio.CapacityLimiter) -> T:
        """Run on a thread and return the result; when cancelled, stop and wait a little for the thread to end.

        A thread that is only about to begin then ends by itself, once it has its association.
        """
        try:
            return await trio.to_thread.run_sync(self.run, limiter=limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            self._killed = True
            if self._begun:
                with trio.CancelScope(shield=True):
                    await self.stop()
            raise
        finally:
            self._associations.tidy()

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


async def find(
    associations: SourceAssociations,
    queries: trio.CapacityLimiter,
    keys: Mapping[str, str],
    level: QueryLevel = "STUDY",
    *,
    limit: int | None = None,
) -> list[dict[str, str]]:
    """Return the matches of `keys` at `level` as keyword → value, in the source's order, at most `limit` of them.

    Raises:
        UsageError: a key is no DICOM keyword.
        AssociationError: the source could not be asked, or refused.

    """
    wanted = query.identifier(level, keys, query.RETURN_KEYS[level])

    def ask(requestor: Requestor) -> list[dict[str, str]]:
        with closing(cast(Any, requestor.find(wanted))) as answers:
            return [query.as_values(answer) for answer in islice(answers, limit)]

    return await converse(associations, ask, queries)


@dataclass(eq=False)
class Slot:
    """The right to move a study; `scope` is cancelled when it is asked back, and whoever has it then leaves soon."""

    priority: Priority
    number: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    asked_back: bool = False
    """Somebody more urgent waits for it."""

    def ask_back(self) -> None:
        """Have whoever has it leave."""
        self.asked_back = True
        self.scope.cancel()


@dataclass(eq=False)
class _Waiter:
    priority: Priority
    number: int
    slot: Slot | None = None
    event: trio.Event = field(default_factory=trio.Event)

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.number


class Slots:
    """The slots of one source: how many studies may be moved from it at a time, and which of those that wait is next.

    A study that somebody waits for does not wait for one of a migration: where all slots are taken, the one of the lowest
    priority is asked back, and whoever has it ends its C-MOVE between instances, gives the slot away, and asks for it again.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers = count()
        self._held: set[Slot] = set()
        self._waiting: list[_Waiter] = []

    @property
    def held(self) -> int:
        """The number of slots that are taken."""
        return len(self._held)

    @asynccontextmanager
    async def take(self, priority: Priority, *, number: int | None = None) -> AsyncIterator[Slot]:
        """Have a slot inside the ``async with``: the most urgent first, then whoever came first.

        A study that gave up its slot when it was asked to keeps its place in the queue by the `number` that the slot had.
        """
        waiter = _Waiter(priority, next(self._numbers) if number is None else number)
        self._waiting.append(waiter)
        self._hand_out()
        try:
            await waiter.event.wait()
            assert waiter.slot is not None
            yield waiter.slot
        finally:
            if waiter.slot is None:
                self._waiting.remove(waiter)
            else:
                self._held.discard(waiter.slot)
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to who is next, and ask back one for each who is more urgent than one of those that have them."""
        self._waiting.sort(key=lambda waiter: waiter.order)
        while self._waiting and len(self._held) < self._total:
            waiter = self._waiting.pop(0)
            waiter.slot = Slot(waiter.priority, waiter.number)
            self._held.add(waiter.slot)
            waiter.event.set()
        for slot in asked_back(self._held, [waiter.priority for waiter in self._waiting]):
            slot.ask_back()


def asked_back(held: set[Slot], waiting: list[Priority]) -> list[Slot]:
    """Return the slots to ask back for those who wait, the most urgent of them first: pure.

    One that was asked back already serves the first who is more urgent than it. Only what is `HIGH` drives out others: a C-MOVE
    that is ended and begun anew costs the source more than waiting for its end.
    """
    chosen: list[Slot] = []
    free = sorted(held, key=lambda slot: (not slot.asked_back, slot.priority, -slot.number))
    for priority in waiting:
        if priority is not Priority.HIGH:
            break
        slot = next((slot for slot in free if slot.priority < priority), None)
        if slot is None:
            break
        free.remove(slot)
        if not slot.asked_back:
            chosen.append(slot)
    return chosen


class AcceptanceOrders:
    """The acceptance orders of one source, in turn; `usual` holds while nobody has one, with those of single SOP classes.

    The order is one for all associations of a source, while several studies may be retrieved from it at a time: a round that
    needs another order than those under way waits until they ended, and so do all that come after it.
    """

    def __init__(
        self, usual: AcceptanceOrder, set_order: Callable[..., None], by_class: Mapping[str, AcceptanceOrder] | None = None
    ) -> None:
        """`set_order` is called with an order, and with the orders of SOP classes where some have their own."""
        self._usual = usual
        self._by_class = dict(by_class or {})
        self._set_order = set_order
        self._now: tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]] | None = None
        self._inside = 0
        self._gate = trio.Lock()
        self._left = trio.Event()

    @property
    def usual(self) -> AcceptanceOrder:
        """The order that works for the source, as far as is known."""
        return self._usual

    @property
    def by_class(self) -> Mapping[str, AcceptanceOrder]:
        """The orders that work for single SOP classes."""
        return self._by_class

    def learn(self, order: AcceptanceOrder) -> None:
        """Make `order` the usual one."""
        self._usual = order
        self._learned()

    def learn_classes(self, orders: Mapping[str, AcceptanceOrder]) -> None:
        """Make `orders` the usual ones of their SOP classes."""
        self._by_class = {**self._by_class, **orders}
        self._learned()

    @asynccontextmanager
    async def take(self, order: AcceptanceOrder, *, for_all: bool = False) -> AsyncIterator[None]:
        """Have transfer syntaxes accepted in `order` inside the ``async with``.

        In the usual order SOP classes keep the orders that they have of their own, unless it is `for_all`.
        """
        wanted = self._orders(order, for_all=for_all)
        async with self._gate:
            while self._inside and self._now != wanted:
                await self._left.wait()
            self._apply(wanted)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._apply(self._orders(self._usual))
            self._left.set()
            self._left = trio.Event()

    def _orders(self, order: AcceptanceOrder, *, for_all: bool = False) -> tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]]:
        return order, self._by_class if order == self._usual and not for_all else {}

    def _learned(self) -> None:
        if not self._inside:
            self._apply(self._orders(self._usual))

    def _apply(self, orders: tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]]) -> None:
        if self._now != orders:
            self._now = orders
            order, by_class = orders
            if by_class:
                self._set_order(order, by_class)
            else:
                self._set_order(order)
