"""The composition root: what a gateway is made of, in which order it starts, and how it drains.

Start: lock of the state folder, ledger, spool, recorder, recovery, delivery, confirm, housekeeping, control API, and the listener
last, so that nothing is accepted before everything behind it stands. Stop: the listener first; running associations and the
instances at hand finish within ``[serve] drain_timeout_s``, clients with a long operation are told, then the rest ends; the
recorder after the last association and before the ledger, so that what was answered is recorded. A part that crashes ends the
gateway, because a gateway that runs without one of its parts would only look alive.

The stages meet here and nowhere else: each is given the others' hints as plain callables.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial

import structlog
import trio

from gateway import housekeeping, planners
from gateway.association.acceptor import Acceptor, Limits, ListenerSpec
from gateway.association.admission import KnownSources
from gateway.association.services import StorageService
from gateway.codec.available import capabilities
from gateway.codec.pool import Pool
from gateway.confirm import Confirmer
from gateway.conflicts import Conflicts
from gateway.delivery import Dispatcher
from gateway.delivery.acceptance import Acceptance
from gateway.delivery.build import destinations, forms
from gateway.delivery.copies import Copies
from gateway.delivery.transcoder import Transcoder
from gateway.domain import Provenance, Purpose
from gateway.engine import Engine, Jobs, Role
from gateway.errors import ConfigurationError, GatewayError, Problem, StateFolderInUse, TaskCrashed, leaf
from gateway.existing import Existing
from gateway.hints import Hints
from gateway.intake import Recorder, Releaser, StorageIntake, recover
from gateway.ledger import Ballast, Ledger, learned, retrievals
from gateway.retrieve import Retriever
from gateway.route import compile_routes, route
from gateway.settings import Settings
from gateway.spool import Spool, StateLock
from gateway.stored import Stored
from gateway.throttle import Throttle
from gateway.tls import acceptor_context, requestor_context
from gateway.web.api import create_api
from gateway.web.server import serve_control
from gateway.web.status import listening

log = structlog.get_logger()

LEDGER_NAME = "ledger.db"
BALLAST_NAME = "ledger.ballast"
SPOOL_NAME = "spool"
COPIES_NAME = "transcoded"
COMPARE_NAME = "comparing"
PROVING_NAME = "proving"
REPORTS_NAME = "reports"

LOCK_S = 3.0
"""A short command may have the state folder open; `serve` waits this long for it."""


class Stop:
    """Tells a gateway to stop: `request` drains, and once more means now. Methods are for the trio thread."""

    def __init__(self) -> None:
        self.requested = trio.Event()
        self.hurried = trio.Event()

    def request(self) -> None:
        """Drain; the second time, break off what still runs."""
        if self.requested.is_set():
            self.hurried.set()
        self.requested.set()


async def serve(settings: Settings, drained: Callable[[], None]) -> None:
    """Run a gateway until SIGTERM or SIGINT, then drain; a second signal breaks off what still runs.

    `drained` is called once nothing but control connections is left to end.

    Raises:
        StateFolderInUse: another gateway owns the state folder.
        ConfigurationError: a port, certificate or folder cannot be used.
        TaskCrashed: a part failed in a way that nobody foresaw; the log says where.

    """
    stop = Stop()

    async def heed_signals(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                log.info("signal", signal=signal.Signals(number).name)
                stop.request()

    with first_of_ours():
        async with trio.open_nursery() as nursery:
            await nursery.start(heed_signals)
            await run(settings, role=Role.GATEWAY, stop=stop, by_itself=True, lock_s=LOCK_S, drained=drained)
            nursery.cancel_scope.cancel()


async def run(
    settings: Settings,
    *,
    role: Role,
    stop: Stop,
    by_itself: bool = False,
    lock_s: float = 0.0,
    drain_s: float | None = None,
    drained: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[Engine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a gateway in `role` until `stop` is requested; started once it answers on its control socket and listens.

    `by_itself` has it do what the configuration asks without a command (``[[sync]]``), which is for `serve` alone. `lock_s` is how
    long to wait for the state folder; `drain_s` overrides ``[serve] drain_timeout_s``; `drained` is called once
    nothing but control connections is left to end. Raises as `serve` does.
    """
    with first_of_ours(), ExitStack() as stack:
        stack.enter_context(await _locked(settings, lock_s))
        engine = stack.enter_context(_opened(settings, role))
        async with trio.open_nursery() as control:
            closing = trio.Event()
            try:
                async with trio.open_nursery() as parts:
                    await _start(engine, parts, control, closing)
                    if by_itself:
                        _start_planners(engine, parts)
                    task_status.started(engine)
                    await stop.requested.wait()
                    await _drain(engine, stop, drain_s or settings.serve.drain_timeout_s)
                    parts.cancel_scope.cancel()
                drained()
            finally:
                closing.set()
    log.info("gateway_stopped")


async def _locked(settings: Settings, lock_s: float) -> StateLock:
    deadline = trio.current_time() + lock_s
    while True:
        try:
            return StateLock(settings.gateway.state)
        except StateFolderInUse:
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(0.1)


@contextmanager
def _opened(settings: Settings, role: Role) -> Iterator[Engine]:
    state = settings.gateway.state
    reserve_bytes = settings.spool.reserve_bytes
    ballast = Ballast(state / BALLAST_NAME)
    if role is Role.GATEWAY:
        ballast.take()
    with (
        Spool(state / SPOOL_NAME, reserve_bytes=reserve_bytes, withheld=lambda: ballast.missing_bytes) as spool,
        Ledger(state / LEDGER_NAME, ballast=ballast) as ledger,
        Pool() as pool,
    ):
        engine = _assembled(settings, role, spool, ledger, pool)
        with engine.recorder:
            yield engine


def _assembled(settings: Settings, role: Role, spool: Spool, ledger: Ledger, pool: Pool) -> Engine:
    """Make every part and give each the others' hints; nothing runs yet. On the trio thread."""
    hints, jobs = Hints(), Jobs()
    recorder = Recorder(spool, ledger, recorded=hints.recorded)
    # Each shared by whatever its source sends, on associations of ours and of its own.
    throttles = {name: throttle for name, table in settings.sources.items() if (throttle := Throttle.of(table.max_rate))}
    admission = KnownSources(settings, orders=_learned_orders(ledger), throttles=throttles, turned_away=hints.turned_away)
    retriever = Retriever(
        settings,
        ledger,
        tls=requestor_context,
        set_order=admission.set_order,
        barrier=recorder.flush,
        storage=lambda: intake,
        has_room=spool.has_room,
        existing=Existing(settings, ledger),
        throttles=throttles,
    )
    copies = Copies(settings.gateway.state / COPIES_NAME, spool)
    wanted = forms(settings, copies, capabilities(), acceptance=partial(_acceptance, ledger))
    transcoder = Transcoder(ledger, spool, copies, pool, wanted, changed=hints.transcoded, has_room=spool.has_room)
    dispatcher = Dispatcher(
        ledger, destinations(settings, copies, wanted, ledger), changed=hints.deliveries_changed, to_transcode=transcoder.nudge
    )
    stored = Stored(settings, spool, pool, settings.gateway.state / PROVING_NAME)
    confirmer = Confirmer(ledger, settings, changed=hints.proofs_changed, store=stored)
    rules = compile_routes(settings.routes)
    intake = StorageIntake(spool, recorder, route=partial(route, rules), keywords=rules.keywords, correlate=retriever.correlate)
    conflicts = Conflicts(ledger, spool, pool, settings.gateway.state / PROVING_NAME, settled=hints.settled.give)
    hints.connect(retriever, dispatcher, confirmer, transcoder, conflicts.found)
    scratch = settings.gateway.state / COMPARE_NAME
    comparisons = planners.comparisons(
        settings, ledger, spool, retriever, scratch, pool=pool, nudge=dispatcher.nudge, listens=role is Role.GATEWAY
    )
    return Engine(
        settings=settings,
        role=role,
        spool=spool,
        ledger=ledger,
        recorder=recorder,
        intake=intake,
        acceptor=_acceptor(settings, admission, retriever.capturing(intake), confirmer),
        retriever=retriever,
        dispatcher=dispatcher,
        transcoder=transcoder,
        confirmer=confirmer,
        conflicts=conflicts,
        releaser=Releaser(spool, ledger, history_s=settings.spool.history_days * 86_400.0),
        syncs=planners.syncs(settings, ledger, retriever, barrier=recorder.flush),
        migrations=planners.migrations(
            settings, ledger, retriever, barrier=recorder.flush, has_room=spool.has_room, whole=jobs.running
        ),
        comparisons=comparisons,
        daily=planners.daily(settings, ledger, comparisons, settings.gateway.state / REPORTS_NAME, barrier=recorder.flush),
        settled=hints.settled,
        jobs=jobs,
    )


def _acceptance(ledger: Ledger, destination: str) -> Acceptance:
    """Return what earlier associations with `destination` taught, to be remembered in `ledger`."""
    subject, fact = learned.destination_subject(destination), learned.REFUSED_CONTEXTS

    def remember(known: str) -> None:
        # A ledger that cannot take it now costs an association after the next start.
        ledger.submit(partial(learned.put, subject=subject, fact=fact, value=known, now=time.time()))

    with ledger.read() as connection:
        return Acceptance(learned.get(connection, subject, fact, now=time.time()), changed=remember)


def _learned_orders(ledger: Ledger) -> dict[str, str]:
    """Return, by name of source, the acceptance orders of transfer syntaxes that its earlier retrievals taught."""
    with ledger.read() as connection:
        taught = learned.all_of(connection, learned.ACCEPTANCE_ORDER, now=time.time())
    return {subject.removeprefix(learned.source_subject("")): order for subject, order in taught.items()}


def _purpose(ledger: Ledger, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
    """Return what an instance came for whose bytes are found at start without a row."""
    with ledger.read() as connection:
        return retrievals.purpose_of(connection, provenance, sop_instance_uid)


def _acceptor(settings: Settings, admission: KnownSources, storage: StorageService, confirmer: Confirmer) -> Acceptor:
    listen = settings.listen
    listeners = [ListenerSpec(listen.host, listen.port)] if listen.plain else []
    if listen.tls is not None:
        listeners.append(ListenerSpec(listen.host, listen.tls.port, acceptor_context(listen.tls)))
    limits = Limits(
        max_associations=listen.max_associations,
        idle_timeout_s=listen.idle_timeout_s,
        pdu_timeout_s=listen.pdu_timeout_s,
        handshake_timeout_s=listen.handshake_timeout_s,
        max_pdu_bytes=listen.max_pdu_bytes,
    )
    return Acceptor(listeners, admission=admission, storage=storage, commitment=confirmer, limits=limits)


async def _start(engine: Engine, parts: trio.Nursery, control: trio.Nursery, closing: trio.Event) -> None:
    """Start the parts in their order. The API, in `control`, outlives them until `closing`: its clients hear the end."""
    if engine.role is Role.GATEWAY:
        await _start_stages(engine, parts)
    await control.start(partial(serve_control, create_api(engine), engine.settings.gateway.state, stop=closing))
    if engine.role is Role.GATEWAY:
        await trio.to_thread.run_sync(_listen, engine)
    log.info("gateway_started", role=engine.role, process_id=os.getpid(), listening=listening(engine))


async def _start_stages(engine: Engine, parts: trio.Nursery) -> None:
    rules = compile_routes(engine.settings.routes)
    purpose = partial(_purpose, engine.ledger)
    report = await trio.to_thread.run_sync(
        partial(recover, engine.spool, engine.ledger, route=partial(route, rules), keywords=rules.keywords, correlate=purpose)
    )
    interrupted = partial(engine.ledger.write, partial(retrievals.stop_running_jobs, now=time.time()))
    log.info("recovered", **asdict(report), interrupted_jobs=await trio.to_thread.run_sync(interrupted))
    await parts.start(_part("transcoding", engine.transcoder.run))
    await parts.start(_part("delivery", engine.dispatcher.run))
    await parts.start(_part("confirm", engine.confirmer.run))
    await parts.start(_part("migrations", engine.migrations.run))
    room = housekeeping.Hint()
    parts.start_soon(_chore("conflicts", engine.conflicts.run))
    parts.start_soon(_chore("release", partial(housekeeping.release_bytes, engine.releaser, engine.settled, room.give)))
    parts.start_soon(_chore("forget", partial(housekeeping.forget_history, engine.releaser)))
    parts.start_soon(_chore("certificates", partial(housekeeping.warn_of_certificates, engine.settings)))
    parts.start_soon(
        _chore("room", partial(housekeeping.watch_room, engine.spool, engine.ledger, room, engine.intake.refused.rest))
    )


def _start_planners(engine: Engine, parts: trio.Nursery) -> None:
    """Start what the configuration asks for by itself; the listener is open by now, so that sources can call back."""
    for table in engine.settings.sync:
        parts.start_soon(_chore(f"sync {table.name}", partial(engine.syncs.run, table, engine.jobs.running)))
    for compared in engine.settings.compare:
        parts.start_soon(_chore(f"compare {compared.name}", partial(engine.daily.run, compared, engine.jobs.running)))
    parts.start_soon(_chore("migrations carried on", engine.migrations.carry_on))


def _listen(engine: Engine) -> None:
    try:
        engine.acceptor.start()
    except OSError as error:
        listen = engine.settings.listen
        ports = ", ".join(str(port) for port in (listen.port, listen.tls.port if listen.tls else None) if port is not None)
        problem = Problem(
            "[listen]", "host, port", f"{listen.host}, {ports} ({error.strerror or error})", "an address to listen on"
        )
        raise ConfigurationError([problem]) from error


async def _drain(engine: Engine, stop: Stop, drain_s: float) -> None:
    """Let what runs finish within `drain_s` seconds, less once `stop` is hurried; then nothing of the network is left."""
    log.info("draining", associations=engine.acceptor.association_count, jobs=len(engine.jobs), timeout_s=drain_s)
    engine.acceptor.stop_accepting()
    engine.jobs.stop()
    async with trio.open_nursery() as nursery:

        async def hurry() -> None:
            await stop.hurried.wait()
            log.warning("draining_cut_short")
            nursery.cancel_scope.cancel()

        nursery.start_soon(hurry)
        async with trio.open_nursery() as draining:
            draining.start_soon(_finish_associations, engine.acceptor, drain_s)
            if engine.role is Role.GATEWAY:
                draining.start_soon(engine.dispatcher.drain, drain_s)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(engine.acceptor.close)


async def _finish_associations(acceptor: Acceptor, timeout_s: float) -> None:
    if not await trio.to_thread.run_sync(acceptor.drain, timeout_s, abandon_on_cancel=True):
        log.warning("associations_aborted")


def _part(name: str, run_part: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Name a part: when it crashes, the log says which, and the gateway ends."""

    async def named(task_status: trio.TaskStatus[None]) -> None:
        try:
            await run_part(task_status=task_status)
        except Exception as error:  # the root of a task
            raise _crashed(name) from error

    return named


def _chore(name: str, run_chore: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def named() -> None:
        try:
            await run_chore()
        except Exception as error:  # the root of a task
            raise _crashed(name) from error

    return named


def _crashed(name: str) -> TaskCrashed:
    log.exception("part_crashed", part=name)
    return TaskCrashed(f"the gateway ends because its part {name!r} crashed; the log says where. Nothing that was answered is lost")


@contextmanager
def first_of_ours() -> Iterator[None]:
    """Raise, instead of a group of errors, the first of ours in it, or the first at all: tasks fall together for one reason."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise leaf(group.subgroup(GatewayError) or group) from group
