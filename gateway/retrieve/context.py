"""The services that retrievals work with: a source, the ledger, the threads, and the wait for a source that is busy."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio
from sqlalchemy import Connection

from gateway.archives.lister import Knowledge, memory
from gateway.association.dimse.services import StorageService
from gateway.association.scu.requestor import Requestor
from gateway.association.upper.negotiation import J2K_FIRST, ORDERS
from gateway.config.settings import SourceTable
from gateway.core.errors import AssociationError, DimseFailed, ProtocolError
from gateway.core.log import get_logger
from gateway.core.throttle import Throttle
from gateway.ledger import Ledger
from gateway.ledger.peers import learned
from gateway.retrieve import listing
from gateway.retrieve.arrivals import Arrivals
from gateway.retrieve.events import Waiting
from gateway.retrieve.recovery import AcceptanceOrder, Backoff, Method, methods
from gateway.retrieve.source import AcceptanceOrders, Connect, Slots, SourceAssociations, converse

T = TypeVar("T")
log = get_logger()

LESSON_S = 90 * 86400.0
"""The time that a lesson from a source is believed; then it is found out anew."""

BOTH_ORDERS = "both_orders"
"""About a source: ``yes`` when some of its studies came whole only with both acceptance orders, one after the other."""

ROOM_WAIT_S = 3600.0
"""The longest wait for room in the spool before a study is given up."""

ROOM_LOOK_S = 1.0
"""The time between two looks for room meanwhile."""

IMPATIENT_S = 600.0
"""The time in which a source is not waited for once more after it refused a query for want of resources again and again."""

QUERIES_AT_A_TIME = 16
"""Conversations with one source at a time; what waits for more of them waits for that source alone."""

MAX_MOVES = 80
"""C-MOVEs and C-GETs of one source at a time: as many as it may be configured to have, and some that are being given up."""

HeldByAll = Callable[[str, str, Collection[str], Collection[str]], set[str]]
"""Given the name of a source, a study, its series and destinations: the SOP Instance UIDs that all of those hold.

Without destinations those are meant that the routes may lead to from the source. Blocking; called on a thread.
"""


Encodings = Callable[[str, str], Mapping[str, tuple[str, str]]]
"""Given the name of a source and a study: the SOP Class UID and Transfer Syntax UID that the source has each instance in.

As far as it tells them otherwise than by C-FIND. Blocking; called on a thread; raises nothing.
"""


@dataclass
class Source:
    """A source as retrievals see it: how to reach it, what it taught, and how many may ask it at a time."""

    name: str
    table: SourceTable
    connect: Connect
    associations: SourceAssociations
    """Those for C-FIND and C-MOVE."""
    moves: Slots
    orders: AcceptanceOrders
    both_orders: bool = False
    asynchronous: bool = False
    anonymous: bool = False
    """The source's instances do not say for which C-MOVE they come."""
    encodings: bool | None = None
    """Whether it tells the transfer syntaxes of the instances that it lists; None where that is not known."""
    throttle: Throttle | None = None
    preferred: tuple[str, ...] = J2K_FIRST
    """The transfer syntaxes in the order that the configuration prefers, which is the one called ``j2k-first``."""
    works: Method | None = None
    """The operation that brought instances from it, where that has to be found out."""
    queries: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, QUERIES_AT_A_TIME))
    """Threads on which it is asked what it has: its own, so that a source that never answers holds up no other."""
    retrieving: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, MAX_MOVES))
    """Threads of its C-MOVEs and C-GETs."""
    knowledge: Knowledge = field(default_factory=Knowledge)
    """The evidence of how many matches it gives to a query."""
    knowledge_kept: str = ""
    """The text in which the ledger has that evidence."""
    impatient_until: float = 0.0
    """The time (monotonic seconds) until which a refused query is taken as refused for good: it was waited for in vain."""

    @property
    def order(self) -> AcceptanceOrder:
        """The order of transfer syntaxes that works for it, as far as is known."""
        return self.orders.usual

    def flowed_at(self) -> float:
        """Return when it last sent anything, monotonic seconds; 0.0 where that is not known."""
        return 0.0 if self.throttle is None else self.throttle.taken_at

    @property
    def methods(self) -> tuple[Method, ...]:
        """By which operation to ask it, and by which where that is in vain."""
        return methods(self.table.retrieve, self.works)

    def syntaxes(self, order: AcceptanceOrder) -> tuple[str, ...]:
        """Return the transfer syntaxes that it is offered, in `order`."""
        named = ORDERS.get(order, J2K_FIRST)
        return self.preferred if named is J2K_FIRST else named

    @property
    def subject(self) -> str:
        """The subject of what is learned about it."""
        return learned.source_subject(self.name)


@dataclass(frozen=True)
class RetrieveContext:
    """The services that every retrieval works with.

    `registration` tells a person what to register in a source. `barrier` returns once the ledger has, and the arrivals count,
    everything that was answered 0000 before; it blocks and raises LedgerUnavailable. `storage` gives what takes in the instances
    that come by C-GET. `encodings` tells what a source has its instances in, where that can be asked.
    """

    ledger: Ledger
    arrivals: Arrivals
    ae_title: str
    registration: Callable[[SourceTable], str]
    threads: trio.CapacityLimiter
    barrier: Callable[[], None]
    has_room: Callable[[], bool]
    existing: HeldByAll | None
    storage: Callable[[], StorageService]
    encodings: Encodings | None = None
    backoff: Backoff = field(default_factory=Backoff)
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.time

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Change the ledger, durably."""
        return await trio.to_thread.run_sync(self.ledger.write, change, limiter=self.threads)

    async def read(self, query: Callable[[Connection], T], *, caught_up: bool = True) -> T:
        """Ask the ledger; when `caught_up` it has everything that was answered 0000 before."""
        ask = partial(self.ledger.ask, query, after=self.barrier if caught_up else None)
        return await trio.to_thread.run_sync(ask, limiter=self.threads)

    async def caught_up(self) -> None:
        """Wait until everything that was answered 0000 before is recorded and counted."""
        await trio.to_thread.run_sync(self.barrier, limiter=self.threads)

    async def remember(self, source: Source, fact: str, value: str) -> None:
        """Have the ledger keep what `source` taught."""
        log.info("source_taught", source=source.name, fact=fact, value=value)
        now = self.clock()
        await self.write(partial(learned.put, subject=source.subject, fact=fact, value=value, now=now, expires_at=now + LESSON_S))

    async def worked(self, source: Source, method: Method) -> None:
        """Learn that `method` brings instances from `source`, where that was to be found out."""
        if len(source.methods) > 1 and source.works is not method:
            source.works = method
            await self.remember(source, learned.RETRIEVE, str(method))

    async def room(self, waiting: Callable[[Waiting], Awaitable[None]], study: str) -> bool:
        """Wait for room in the spool; tell whether it came."""
        if self.has_room():
            return True
        await waiting(Waiting(study, "room", ROOM_LOOK_S))
        for _ in range(int(ROOM_WAIT_S / ROOM_LOOK_S)):
            await trio.sleep(ROOM_LOOK_S)
            if self.has_room():
                return True
        return False

    async def ask(
        self, source: Source, query: Callable[[Requestor, bool], T], waiting: Callable[[Waiting], Awaitable[None]], study: str = ""
    ) -> T:
        """Have `query` ask the source; its second argument says to take a refusal for want of resources as final.

        That is so once such a refusal was waited for in vain: some sources say so of every query that finds too much.

        Raises:
            AssociationError: it cannot help, or the tries are used up.

        """
        try:
            if time.monotonic() >= source.impatient_until:
                try:
                    return await self._patiently(source, lambda requestor: query(requestor, False), waiting, study)
                except DimseFailed as error:
                    if not listing.is_busy(error):
                        raise
                    source.impatient_until = time.monotonic() + IMPATIENT_S
            return await self._patiently(source, lambda requestor: query(requestor, True), waiting, study)
        finally:
            # A query that failed also taught how many matches the source gives.
            if (text := source.knowledge.lasting()) != source.knowledge_kept:
                source.knowledge_kept = text
                keep = partial(memory.remember, subject=source.subject, text=source.knowledge.text(), now=self.clock())
                with trio.CancelScope(shield=True):
                    await self.write(keep)

    async def _patiently(
        self, source: Source, work: Callable[[Requestor], T], waiting: Callable[[Waiting], Awaitable[None]], study: str
    ) -> T:
        """Converse with the source; while it is busy or out of reach, back off and try again, and once where it talks nonsense.

        Raises:
            AssociationError: it cannot help, or the tries are used up.

        """
        attempt = odd = 0
        while True:
            attempt += 1
            try:
                return await converse(source.associations, work, source.queries)
            except AssociationError as error:
                odd += isinstance(error, ProtocolError)
                may_pass = odd == 1 if isinstance(error, ProtocolError) else _may_pass(error)
                pause = self.backoff.delay(attempt, self.jitter()) if may_pass else None
                if pause is None:
                    raise
                reason = "busy" if isinstance(error, DimseFailed) else "unreachable"
                log.info("source_waited_for", source=source.name, reason=type(error).__name__, seconds=round(pause, 1))
            await waiting(Waiting(study, reason, pause))
            await trio.sleep(pause)


def _may_pass(error: AssociationError) -> bool:
    if isinstance(error, DimseFailed):
        return listing.is_busy(error)
    return error.retryable
