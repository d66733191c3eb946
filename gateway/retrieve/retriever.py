"""The retriever: jobs of studies, each planned, moved, compared, repaired and given its verdict.

Runs in trio; associations run on threads with a limiter of their own. `correlate` and `arrived` are called from
association threads and take no more than a lock. A job is a tree of tasks: one finds the studies that the keys name, a few
retrieve them; leaving `pull` cancels them all, and each stops its C-MOVE between instances.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio

from gateway.archives.lister import Listing, StudyLister, go_through, memory
from gateway.association.dimse.services import StorageService
from gateway.association.scu import query
from gateway.association.upper.contexts import STUDY_ROOT_CONTEXTS
from gateway.association.upper.negotiation import preferring
from gateway.config.settings import Settings, SourceTable, TlsTable
from gateway.core.domain import Provenance, Purpose
from gateway.core.errors import UsageError, require_known
from gateway.core.log import get_logger
from gateway.core.throttle import Throttle
from gateway.ledger import Ledger
from gateway.ledger.jobs.retrievals import JobState
from gateway.ledger.peers import learned
from gateway.retrieve.arrivals import Arrivals, Capturing
from gateway.retrieve.context import BOTH_ORDERS, Encodings, HeldByAll, RetrieveContext, Source
from gateway.retrieve.events import Event, PullRequest
from gateway.retrieve.job import Job, Session, nobody
from gateway.retrieve.operations import capture
from gateway.retrieve.recovery import USUAL_ORDERS, Backoff, Level, Method, Target, class_orders
from gateway.retrieve.request import JobSpec
from gateway.retrieve.source import AcceptanceOrders, QueryLevel, Slots, SourceAssociations, connecting, find

log = get_logger()

MAX_THREADS = 64
"""Ledger calls of all retrievals at a time; each source has threads of its own for what is asked of it."""

_TAUGHT = (
    learned.ACCEPTANCE_ORDER,
    learned.ASYNCHRONOUS,
    learned.ANONYMOUS,
    learned.RETRIEVE,
    learned.ENCODINGS,
    learned.CLASS_ORDERS,
    BOTH_ORDERS,
)

EVENT_BACKLOG = 256
"""Events that may wait for a slow listener before the job waits for it."""


class Retriever:
    """Retrieves studies from the configured sources to our own AE."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        tls: Callable[[TlsTable], ssl.SSLContext],
        set_order: Callable[..., None],
        barrier: Callable[[], None],
        storage: Callable[[], StorageService],
        has_room: Callable[[], bool] = lambda: True,
        existing: HeldByAll | None = None,
        encodings: Encodings | None = None,
        throttles: Mapping[str, Throttle] | None = None,
        backoff: Backoff | None = None,
        listening: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
    ) -> None:
        """Make a retriever; it opens nothing before `pull` or `find`.

        `tls` makes a requestor's context; `set_order` changes the order in which transfer syntaxes are accepted from a source on
        its next associations, and by a third argument those of single SOP classes; `barrier` blocks until the ledger has all that
        was answered 0000 (`RetrieveContext`); `storage` gives what takes in the instances that come by C-GET; `has_room` says
        whether the spool takes more; `existing` is asked for `skip_existing`, `encodings` for what instances are stored as;
        `throttles` are those of the sources that have one; `backoff` is how a source that is busy or out of reach is waited for;
        `listening` is awaited before a source may be asked to call us by C-MOVE, and raises where nobody can.
        """
        self._settings = settings
        self._ledger = ledger
        self._tls = tls
        self._throttles = throttles or {}
        self._set_order = set_order
        self._listening = listening
        self._arrivals = Arrivals(settings.gateway.ae_title)
        self._sources: dict[str, Source] = {}
        self._running: set[str] = set()
        self._context = RetrieveContext(
            ledger=ledger,
            arrivals=self._arrivals,
            ae_title=settings.gateway.ae_title,
            registration=self._registration,
            threads=trio.CapacityLimiter(MAX_THREADS),
            barrier=barrier,
            has_room=has_room,
            existing=existing,
            storage=storage,
            encodings=encodings,
            backoff=backoff or Backoff(),
        )

    @asynccontextmanager
    async def pull(self, request: PullRequest) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """Run a job; use as ``async with retriever.pull(request) as events: async for event in events: …``.

        The last event is `JobEnded`. Leaving the block early, or cancelling it, stops the job between instances: C-CANCEL, a
        short settling, then state ``stopped``; the same request carries on there.

        Raises (on entering):
            UsageError: no such source, it has no port, a query key is no DICOM keyword, or the same pull is running.
            ConfigurationError: its source is to call us, and we cannot listen.
        """
        source = self._source(request.source)
        query.identifier("STUDY", request.query)
        require_known("destination", request.destinations, self._settings.destinations)
        await self._reachable(source)
        tell, events = trio.open_memory_channel[Event](EVENT_BACKLOG)
        failure: Exception | None = None
        with self._once(request.fingerprint(), "pull"), events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Job(self._context, source, request, tell).run)
                try:
                    yield events
                except Exception as error:  # noqa: BLE001 - the caller's own: raised again, outside the nursery, as it was
                    failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def job(self, source: str, spec: JobSpec) -> AsyncIterator[Session]:
        """Open a job for a planner that retrieves its studies one by one: ``async with retriever.job(…) as session: …``.

        Leaving the block has the ledger say that the job is done, and that it was stopped when an error or a cancellation ends it.

        Raises (on entering):
            UsageError: no such source or destination, it has no port, or a job with this fingerprint is running.
            ConfigurationError: its source is to call us, and we cannot listen.
            LedgerError: the ledger cannot be used.
        """
        asked = self._source(source)
        require_known("destination", spec.destinations, self._settings.destinations)
        await self._reachable(asked)
        with self._once(spec.fingerprint, spec.kind):
            session = await Session.open(self._context, asked, spec)
            state: JobState = "stopped"
            try:
                yield session
                state = "done"
            finally:
                await session.close(state)

    async def _reachable(self, source: Source) -> None:
        """Have somebody listen where `source` may be asked by C-MOVE. Raises ConfigurationError."""
        if self._settings.sources[source.name].retrieve != "get":
            await self._listening()

    @contextmanager
    def _once(self, fingerprint: str, kind: str) -> Iterator[None]:
        """Have one job of a fingerprint at a time."""
        if fingerprint in self._running:
            raise UsageError(f"the same {kind} is running already")
        self._running.add(fingerprint)
        try:
            yield
        finally:
            self._running.discard(fingerprint)

    async def find(
        self,
        source: str,
        keys: Mapping[str, str],
        level: QueryLevel = "STUDY",
        *,
        limit: int | None = None,
    ) -> list[dict[str, str]]:
        """Return the matches of `keys` at `level` as keyword → value, in the source's order, at most `limit` of them.

        Raises:
            UsageError: no such source, or a key is no DICOM keyword.
            AssociationError: the source could not be asked, or refused.

        """
        asked = self._source(source)
        return await find(asked.associations, asked.queries, keys, level, limit=limit)

    async def list_studies(self, source: str, keys: Mapping[str, str], wanted: Sequence[str] = ()) -> Listing:
        """Return the studies that match `keys`, all of them however few the source gives to a query, and why there may be more.

        `wanted` are keywords to be returned. While the source is busy or cannot be reached it is waited for, and asked what it has
        not answered.

        Raises:
            UsageError: no such source, it has no port, or a key is no DICOM keyword.
            AssociationError: it cannot help, or the tries are used up.

        """
        asked = self._source(source)
        lister = StudyLister(keys, asked.knowledge.at("STUDY"), wanted)
        await self._context.ask(asked, partial(go_through, lister), nobody)
        found = lister.listing
        log.debug("studies_listed", source=source, studies=len(found.found), queries=found.queries, doubt=found.doubt)
        return found

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
        """Return what an arriving instance came for, or None for unsolicited. Thread-safe, in memory."""
        return self._arrivals.correlate(provenance, sop_instance_uid)

    def capturing(self, storage: StorageService) -> StorageService:
        """Return what takes in the instances that sources send: those that are captured, and all others by `storage`."""
        return Capturing(self._arrivals.captures, storage)

    async def capture(self, source: str, uids: tuple[str, str, str], storage: StorageService) -> str:
        """Ask for one instance by C-MOVE, by its Study, Series and SOP Instance UIDs, that goes to `storage` and nowhere else.

        Returns why it did not come, nothing where it did (`gateway.retrieve.arrivals`).

        Raises:
            UsageError: no such source, or it has no port.
            ConfigurationError: we cannot listen.
            LedgerError: the ledger cannot be used.
        """
        await self._reachable(self._source(source))
        target = Target(Level.IMAGE, *uids[:2], uids[2:])
        return await capture(self._context, self._source(source), target, storage)

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None:
        """Hint that an instance is durable and recorded; a lost hint costs time, never an instance. Thread-safe, never raises."""
        self._arrivals.arrived(retrieval_id, sop_instance_uid, size_bytes)

    def turned_away(self, calling_ae: str, called_ae: str, address: str) -> None:
        """Hint that a caller was refused: it may be a source that calls back as somebody else. Thread-safe, never raises."""
        self._arrivals.turned_away(calling_ae, called_ae, address)

    def _source(self, name: str) -> Source:
        known = self._sources.get(name)
        if known is None:
            known = self._sources[name] = self._make_source(name)
        return known

    def _make_source(self, name: str) -> Source:
        throttle = self._throttles.get(name)
        connect = connecting(self._settings, name, self._tls, throttle)
        table = self._settings.sources[name]
        now, subject = self._context.clock(), learned.source_subject(name)
        with self._ledger.read() as connection:
            taught = {fact: learned.get(connection, subject, fact, now=now) for fact in _TAUGHT}
            knowledge = memory.recall(connection, subject, now=now, max_results=table.max_results)
        usual = next((order for order in USUAL_ORDERS if order == taught[learned.ACCEPTANCE_ORDER]), USUAL_ORDERS[0])
        by_class = class_orders(taught[learned.CLASS_ORDERS])
        return Source(
            name,
            table,
            connect,
            SourceAssociations(partial(connect, STUDY_ROOT_CONTEXTS)),
            Slots(table.moves),
            AcceptanceOrders(usual, partial(self._set_order, name), by_class),
            both_orders=taught[BOTH_ORDERS] == "yes",
            asynchronous=taught[learned.ASYNCHRONOUS] == "yes",
            anonymous=taught[learned.ANONYMOUS] == "yes",
            encodings={"yes": True, "no": False}.get(taught[learned.ENCODINGS] or ""),
            throttle=throttle,
            knowledge=knowledge,
            knowledge_kept=knowledge.lasting(),
            preferred=preferring(table.prefer or self._settings.listen.prefer),
            works=next((method for method in Method if taught[learned.RETRIEVE] == method), None),
        )

    def _registration(self, table: SourceTable) -> str:
        listen = self._settings.listen
        port = listen.port if listen.plain or listen.tls is None else listen.tls.port
        return f"AE title {self._settings.gateway.ae_title}, host {address_towards(table.host)}, port {port}"


def address_towards(host: str) -> str:
    """Return our own address on the way to `host`, or this machine's name where there is no way. Sends nothing."""
    try:
        any_port = 11112
        family, kind, _, _, address = socket.getaddrinfo(host, any_port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as sock:
            sock.connect(address)
            return str(sock.getsockname()[0])
    except OSError:
        return socket.gethostname()
