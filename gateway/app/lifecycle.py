"""The life of a gateway: how it starts and drains; `assembly` makes it, `stages` starts its parts, `control` is given to it.

Start: lock of the state folder, ledger, spool, recorder, recovery, delivery, confirm, housekeeping, control API, and the listener
last, so that nothing is accepted before everything behind it stands. Stop: the listener first; running associations and the
instances at hand finish within ``[serve] drain_timeout_s``, clients with a long operation are told, then the rest ends; the
recorder after the last association and before the ledger, so that what was answered is recorded. A part that crashes ends the
gateway, because a gateway that runs without one of its parts would only look alive; a look at a peer or a file that fails is tried
again (`gateway.jobs.starts`), because what it failed over is not ours.

A short command that only asks opens a `LazyEngine`: lock and API, and nothing more before it is asked for more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from gateway.app.engine import Engine, LazyEngine
from gateway.config.settings import Settings
from gateway.core.domain import Role
from gateway.core.errors import GatewayError, StateFolderInUse, leaf
from gateway.core.files import using
from gateway.core.log import get_logger
from gateway.core.urls import sqlite_file
from gateway.spool.lock import StateLock

if TYPE_CHECKING:
    from gateway.app.detached import Detached
    from gateway.association.scp.acceptor import Acceptor
    from gateway.ledger import Ballast, Ledger
    from gateway.spool import Spool

log = get_logger()

SPOOL_NAME = "spool"

LOCK_S = 3.0
"""A short command may have the state folder open; `serve` waits this long for it."""


class Control(Protocol):
    """The control API in the life of a gateway: `gateway.control` is above this room and hands itself in."""

    async def serve(
        self, engine: Engine, *, stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer clients on the control socket until `stop`; started once it answers."""

    async def carry_on(self, engine: Engine) -> None:
        """Begin again the commands that were left to an earlier process and did not come to their end."""


class Stop:
    """Tells a gateway to stop: `request` drains, and once more means now. Methods are for the trio thread."""

    def __init__(self, *, drain_s: float | None = None) -> None:
        """`drain_s` is the longest time that work at hand may take to finish; without it the configuration says."""
        self.requested = trio.Event()
        self.hurried = trio.Event()
        self.drain_s = drain_s

    def request(self) -> None:
        """Drain; the second time, break off what still runs."""
        if self.requested.is_set():
            self.hurried.set()
        self.requested.set()


async def serve(settings: Settings, drained: Callable[[], None], *, control: Control) -> None:
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
            await run(settings, role=Role.GATEWAY, stop=stop, control=control, by_itself=True, lock_s=LOCK_S, drained=drained)
            nursery.cancel_scope.cancel()


async def run(
    settings: Settings,
    *,
    role: Role,
    stop: Stop,
    control: Control,
    listens: bool = True,
    by_itself: bool = False,
    lock_s: float = 0.0,
    drained: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[Engine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a gateway in `role` until `stop` is requested; started once it answers on its control socket, and listens if `listens`.

    Without `listens` it opens its ports once an operation needs a caller. `by_itself` has it do what the configuration asks
    without a command (``[[sync]]``), which is for `serve` alone. `lock_s` is how long to wait for the state folder;
    `drained` is called once nothing but control connections is left to end. Raises as `serve` does.
    """
    with first_of_ours(), ExitStack() as stack:
        stack.enter_context(await _locked(settings, lock_s))
        engine = stack.enter_context(_opened(settings, role))
        async with trio.open_nursery() as clients:
            closing = trio.Event()
            try:
                async with trio.open_nursery() as parts:
                    await _start(
                        engine, parts, listens=listens, answer=partial(clients.start, partial(control.serve, engine, stop=closing))
                    )
                    if by_itself:
                        from gateway.app.stages import start_planners

                        start_planners(engine, parts, partial(control.carry_on, engine))
                    task_status.started(engine)
                    await stop.requested.wait()
                    await _drain(engine, stop, stop.drain_s or settings.serve.drain_timeout_s)
                    parts.cancel_scope.cancel()
                drained()
            finally:
                closing.set()
    if role is Role.GATEWAY:
        log.info("gateway_stopped")


async def _locked(settings: Settings, lock_s: float) -> StateLock:
    deadline = trio.current_time() + lock_s
    while True:
        try:
            with using(settings.gateway.state, "cannot use the state folder"):
                return StateLock(settings.gateway.state)
        except StateFolderInUse:
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(0.1)


@contextmanager
def _opened(settings: Settings, role: Role) -> Iterator[Engine]:
    """Open the state folder; what a desk is not asked for is not made, and its libraries are not imported."""
    state, url = settings.gateway.state, settings.ledger_url()
    path = sqlite_file(url)
    with ExitStack() as stack:

        @cache
        def ballast() -> Ballast:
            from gateway.ledger import Ballast

            kept = Ballast(path.with_suffix(".ballast"))
            if role is Role.GATEWAY:
                kept.take()
            return kept

        @cache
        def spool() -> Spool:
            from gateway.spool import Spool

            withheld, reserve_bytes = ballast(), settings.spool.reserve_bytes
            with using(state, "cannot use the state folder"):
                opened = Spool(state / SPOOL_NAME, reserve_bytes=reserve_bytes, withheld=lambda: withheld.missing_bytes)
            return stack.enter_context(opened)

        @cache
        def ledger() -> Ledger:
            from gateway.ledger import Ledger

            if not (path.parent.exists() and path.parent.samefile(state)):
                # One gateway a ledger too, while it is SQLite.
                with using(path.parent, "cannot use the folder of the ledger"):
                    stack.enter_context(StateLock(path.parent))
            with using(state, "cannot use the state folder"):
                opened = Ledger(url, node=settings.node.name, ballast=ballast(), begun=_begun(state / SPOOL_NAME))
            return stack.enter_context(opened)

        @cache
        def detached() -> Detached:
            from gateway.app.detached import REPORTS_NAME, Detached

            return Detached(ledger(), state / REPORTS_NAME)

        def assemble() -> Engine:
            from gateway.app.assembly import assembled
            from gateway.codec.workers.pool import Pool

            engine = assembled(settings, role, spool(), ledger(), stack.enter_context(Pool()), detached=detached())
            stack.enter_context(engine.recorder)
            return engine

        alone: dict[str, Callable[[], object]] = {"spool": spool, "ledger": ledger, "detached": detached}
        yield assemble() if role is Role.GATEWAY else LazyEngine(settings, alone, assemble)


def _begun(spool: Path) -> bool:
    """Tell whether the spool ever had instances in it."""
    from gateway.spool.layout import LOG_SUFFIX, SEGMENTS

    return any((spool / SEGMENTS).glob(f"*{LOG_SUFFIX}"))


async def _start(engine: Engine, parts: trio.Nursery, *, listens: bool, answer: Callable[[], Awaitable[None]]) -> None:
    """Start the parts in their order. The API, which `answer` starts, outlives them: its clients hear the end."""
    if engine.role is Role.GATEWAY:
        from gateway.app.stages import start_stages

        await start_stages(engine, parts)
    await answer()
    if engine.role is Role.GATEWAY and listens:
        await engine.listener.open()
    if engine.role is Role.GATEWAY:
        listening = [f"{host}:{port}" for host, port in engine.acceptor.endpoints]
        log.info("gateway_started", role=engine.role, process_id=os.getpid(), listening=listening)


async def _drain(engine: Engine, stop: Stop, drain_s: float) -> None:
    """Let what runs finish within `drain_s` seconds, less once `stop` is hurried; then nothing of the network is left."""
    if engine.role is Role.DESK:
        engine.jobs.stop()
        return
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
            draining.start_soon(engine.dispatcher.drain, drain_s)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(engine.acceptor.close)


async def _finish_associations(acceptor: Acceptor, timeout_s: float) -> None:
    if not await trio.to_thread.run_sync(acceptor.drain, timeout_s, abandon_on_cancel=True):
        log.warning("associations_aborted")


@contextmanager
def first_of_ours() -> Iterator[None]:
    """Raise, instead of a group of errors, the first of ours in it, or the first at all: tasks fall together for one reason."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise leaf(group.subgroup(GatewayError) or group) from group
