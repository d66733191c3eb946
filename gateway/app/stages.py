"""The parts of a gateway in the order in which they start, each a task with a name: when one crashes, the log says which."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial

import trio

from gateway.app import housekeeping
from gateway.app.engine import Engine
from gateway.core.domain import Provenance, Purpose
from gateway.core.errors import TaskCrashed
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import WakeUp
from gateway.intake import recover
from gateway.jobs.starts import keep
from gateway.ledger import Ledger
from gateway.ledger.jobs import retrievals
from gateway.route import compile_routes, route

log = get_logger()


async def start_stages(engine: Engine, parts: trio.Nursery) -> None:
    """Recover what an earlier process left, then start everything but the API and the listener."""
    await trio.to_thread.run_sync(engine.ledger.check)
    await trio.to_thread.run_sync(engine.ledger.enter)
    rules = compile_routes(engine.settings.routes)
    purpose = partial(_purpose, engine.ledger)
    reconcile = partial(recover, engine.spool, engine.ledger, route=partial(route, rules), keywords=rules.keywords)
    report = await trio.to_thread.run_sync(partial(reconcile, correlate=purpose, judging=engine.judging))
    interrupted = partial(engine.ledger.write, partial(retrievals.stop_running_jobs, now=time.time()))
    log.info("recovered", **asdict(report), interrupted_jobs=await trio.to_thread.run_sync(interrupted))
    await parts.start(_part("transcoding", engine.transcoder.run))
    await parts.start(_part("delivery", engine.dispatcher.run))
    await parts.start(_part("confirm", engine.confirmer.run))
    await parts.start(_part("migrations", engine.migrations.run))
    await parts.start(_part("detached", engine.detached.run))
    room = WakeUp()
    parts.start_soon(_chore("conflicts", engine.conflicts.run))
    parts.start_soon(_chore("release", partial(housekeeping.release_bytes, engine.releaser, engine.settled, room.give)))
    parts.start_soon(_chore("forget", partial(housekeeping.forget_history, engine.releaser)))
    parts.start_soon(keep, "certificates", partial(housekeeping.warn_of_certificates, engine.settings))
    parts.start_soon(keep, "ledger", partial(housekeeping.watch_ledger, engine.ledger))
    parts.start_soon(keep, "studies", partial(housekeeping.tell_of_studies, engine.journal, engine.ledger))
    parts.start_soon(keep, "room", partial(housekeeping.watch_room, engine.spool, engine.ledger, room, engine.intake.refused.rest))


def start_planners(engine: Engine, parts: trio.Nursery, carry_on: Callable[[], Awaitable[None]]) -> None:
    """Start what the configuration asks for by itself, and `carry_on`, which begins detached commands again.

    The listener is open by now, so that sources can call back.
    """
    for table in engine.settings.sync:
        parts.start_soon(keep, f"sync {table.name}", partial(engine.syncs.run, table, engine.jobs.running))
    for compared in engine.settings.compare:
        parts.start_soon(keep, f"compare {compared.name}", partial(engine.daily.run, compared, engine.jobs.running))
    parts.start_soon(keep, "migrations carried on", engine.migrations.carry_on)
    parts.start_soon(keep, "detached carried on", carry_on)


def _purpose(ledger: Ledger, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
    """Return what an instance came for whose bytes are found at start without a row."""
    return ledger.ask(lambda connection: retrievals.purpose_of(connection, provenance, sop_instance_uid))


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
