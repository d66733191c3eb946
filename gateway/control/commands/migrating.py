"""Migrations for clients: started and followed as a stream; jobs listed, shown, reported, paused and resumed. Runs on trio.

A stream that ends early stops its migration, unless it was detached. Its last line is ``summary``, with what became of every study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import trio

from gateway.app.engine import Engine
from gateway.control.commands.pulling import deliver, needs_everything
from gateway.control.events import Listing, Migrating, MigrationStarted, Portions
from gateway.control.server import Emit
from gateway.control.wire import Document, JobAction, MigrateCommand, Summary
from gateway.core.domain import Role
from gateway.core.errors import AssociationError, UsageError
from gateway.jobs.migrate.request import MigrationRequest
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.jobs import planning, starts
from gateway.ledger.jobs.detached import DetachedJob
from gateway.ledger.jobs.planning import MigrationCounts, MigrationJob
from gateway.ledger.jobs.starts import Unended

if TYPE_CHECKING:
    from gateway.jobs.migrate import Migration, Running

LOOK_S = 0.5
"""Between two looks at how far a migration is; more where one look takes long."""

LOOK_SHARE = 10
"""A client that follows costs the gateway no more than one part in this many of its time."""


async def migrate(engine: Engine, command: MigrateCommand, emit: Emit) -> None:
    """Start a migration, or carry on the same one, and follow it.

    Raises:
        UsageError: it asks for what is not configured, or the same migration is running.
        GatewayStopping: the gateway is told to stop meanwhile.
    """
    request = command.request
    if command.dry_run:
        await _would_move(engine, request, emit)
        return
    needs_everything(engine)
    running = await engine.migrations.start(request, detached=command.detach)
    job_id = running.migration.job_id or 0
    await emit(MigrationStarted(job_id, request.source, command.detach))
    if command.detach:
        await emit(Summary({"detached": True, **await shown(engine, job_id)}))
        return
    async with engine.migrations.followed(running):
        await _follow(running, emit)
        if running.error is not None:
            raise running.error
    async with engine.jobs.running():
        await deliver(engine, _scope(job_id, request), command.wait, None, emit)
        await emit(Summary({"detached": False, **await shown(engine, job_id), **await reported(engine, job_id, running)}))


async def _would_move(engine: Engine, request: MigrationRequest, emit: Emit) -> None:
    """List what a migration would move, portion by portion; nothing is moved, and nothing recorded of it."""
    to, portions = engine.migrations.destinations(request), list[Document]()
    problems, doubts, uids = dict[str, str](), dict[str, str](), dict[str, int | None]()
    labels = request.portions()
    for number, label in enumerate(labels, 1):
        try:
            listed = await engine.migrations.listed(request, label)
        except AssociationError as error:
            problems[label] = str(error)
        else:
            uids |= dict(listed.studies)
            instances = sum(count or 0 for _, count in listed.studies)
            portions.append({"label": label, "studies": len(listed.studies), "instances": instances})
            if listed.doubt:
                doubts[label] = listed.doubt
        await emit(Listing(len(uids), Portions(number, len(labels))))
    counted = [count for count in uids.values() if count is not None]
    await emit(
        Summary(
            {
                "dry_run": True,
                "detached": False,
                "studies": len(uids),
                "instances": sum(counted),
                "uncounted": len(uids) - len(counted),
                "to": list(to),
                "portions": portions,
                "problems": problems,
                "doubts": doubts,
            }
        )
    )


async def _follow(running: Running, emit: Emit) -> None:
    """Tell how far a migration is, as often as that changes, until it has ended."""
    while not running.ended.is_set():
        began, changed = trio.current_time(), running.migration.changed
        await emit(await _progress(running.migration))
        await trio.sleep(max(LOOK_S, LOOK_SHARE * (trio.current_time() - began)))
        with trio.move_on_after(LOOK_S):
            await changed.wait()


async def _progress(migration: Migration) -> Migrating:
    counts = await migration.counts()
    return Migrating(
        studies=_counts(counts),
        portions=Portions(*migration.portions),
        at_a_time=migration.pace.limit,
        waiting=migration.waiting,
        seconds_left=migration.seconds_left(counts),
        problems=migration.problems,
    )


async def listed(engine: Engine) -> Document:
    """Return every migration that the ledger knows, and what was left to the gateway beside them, the newest first."""
    migrations = await trio.to_thread.run_sync(engine.ledger.ask, planning.jobs_of_kind)
    entries = [await _entry(engine, job) for job in migrations]
    entries += [_left(engine, job) for job in await engine.detached.jobs()]
    return {"jobs": sorted(entries, key=lambda entry: int(entry["job_id"]), reverse=True)}


async def shown(engine: Engine, job_id: int) -> Document:
    """Return how far a migration is, or a command that was left to the gateway. Raises UsageError where there is none."""
    left = await engine.detached.job(job_id)
    if left is not None:
        return _left(engine, left)
    return await _entry(engine, await _migration(engine, job_id))


async def act(engine: Engine, action: JobAction) -> Document:
    """Pause or resume a migration, or a command that was left to the gateway, and return how far it is."""
    left = await engine.detached.job(action.id)
    if left is not None:
        if action.action == "pause":
            await engine.detached.pause(action.id)
        else:
            from gateway.control.commands import detaching

            needs_everything(engine)
            await detaching.resume(engine, left)
    elif action.action == "pause":
        await engine.migrations.pause(action.id)
    else:
        needs_everything(engine)
        await engine.migrations.resume(action.id)
    return await shown(engine, action.id)


async def reported(engine: Engine, job_id: int, running: Running | None = None) -> Document:
    """Return what became of each study of a migration, and whether all of it was done; of a command that was left, its summary.

    Raises:
        UsageError: there is no such job, or the command has not ended.
    """
    if await engine.detached.job(job_id) is not None:
        summary = await trio.to_thread.run_sync(engine.detached.summary, job_id)
        if summary is None:
            raise UsageError(f"job {job_id} has not ended (gateway jobs show {job_id})")
        return summary
    from gateway.jobs.migrate import report

    job = await _migration(engine, job_id)
    request = MigrationRequest.of(job.criteria)
    running = running or _under_way(engine).get(job_id)
    kept = {} if running is None else running.migration.kept

    destinations = engine.migrations.brought_to(request)

    def read() -> Document:
        if engine.role is Role.GATEWAY:
            engine.recorder.flush()
        with engine.ledger.read() as connection:
            rows, done = report.lines(connection, job_id, request, destinations, kept)
            portions = planning.portions(connection, job_id)
        if done:
            engine.ledger.write(partial(planning.keep_outcomes, job_id=job_id, outcomes=done))
        doubts = {portion.label: portion.doubt for portion in portions.values() if portion.doubt}
        unlisted = [label for label in request.portions() if label not in portions]
        everything = not doubts and not unlisted and all(row["done"] for row in rows)
        return {"studies": rows, "doubts": doubts, "unlisted": unlisted, "done": everything}

    return await trio.to_thread.run_sync(read)


def _left(engine: Engine, job: DetachedJob) -> Document:
    """Return a command that was left to the gateway, without what names patients."""
    asked = json.loads(job.criteria)
    named = {key: len(asked.get(key) or ()) for key in ("paths", "study_uids", "accession_numbers", "patient_ids", "query")}
    running = job.id in engine.detached.running
    carried_on = job.detached and job.state != "done"
    state = "running" if running else "carried on at the next start" if carried_on else "done" if job.state == "done" else "paused"
    return {
        "job_id": job.id,
        "kind": job.kind,
        "state": state,
        "request": {"source": asked.get("source"), "destinations": asked.get("destinations") or asked.get("to") or [], **named},
        "created_at": job.created_at,
        "changed_at": job.changed_at,
    }


async def _entry(engine: Engine, job: MigrationJob) -> Document:
    request = MigrationRequest.of(job.criteria)
    running = _under_way(engine).get(job.id)
    unended = await trio.to_thread.run_sync(engine.ledger.ask, partial(starts.get, name=starts.of_migration(job.id)))
    document = {
        "job_id": job.id,
        "kind": "migrate",
        "state": _state(job, running, unended),
        "note": "" if running is not None else note(job, unended),
        "request": _described(request),
        "created_at": job.created_at,
        "changed_at": job.changed_at,
    }
    if running is not None:
        return document | asdict(await _progress(running.migration))
    portions = await trio.to_thread.run_sync(engine.ledger.ask, partial(planning.portions, job_id=job.id))
    counts = await trio.to_thread.run_sync(engine.ledger.ask, partial(planning.counts, job_id=job.id))
    return document | {"studies": _counts(counts), "portions": {"listed": len(portions), "of": len(request.portions())}}


def _described(request: MigrationRequest) -> Document:
    """Return what was asked, without what names patients."""
    document = json.loads(request.criteria())
    for key in ("study_uids", "accession_numbers", "patient_ids"):
        document[key] = len(document[key])
    return dict(document)


def note(job: MigrationJob, unended: Unended) -> str:
    """Say why a migration that does not run was not begun again, or failed, and how it is resumed; pure."""
    if job.state == "done":
        return ""
    if job.detached and unended.parked:
        return f"it ended the gateway at its last {unended.count} starts: gateway jobs resume {job.id} carries it on all the same"
    return f"it failed: {unended.error}; gateway jobs resume {job.id} tries again" if unended.error else ""


def _state(job: MigrationJob, running: Running | None, unended: Unended) -> str:
    """Say how a migration stands: running, waiting for the gateway's start or for a person, paused, failed, or done."""
    if running is not None:
        return "waiting" if running.migration.waiting else "running"
    if job.state == "done":
        return "done"
    if job.detached and unended.parked:
        return "not begun again"
    if unended.error:
        return "failed"
    return "carried on at the next start" if job.detached else "paused"


def _counts(counts: MigrationCounts) -> dict[str, int]:
    return {**asdict(counts), "ended": counts.ended}


def _scope(job_id: int, request: MigrationRequest) -> Scope:
    return Scope(job_id=job_id, destinations=request.destinations)


def _under_way(engine: Engine) -> Mapping[int, Running]:
    """Return the migrations that run, by the id of their job: none on a desk."""
    return engine.migrations.running if engine.role is Role.GATEWAY else {}


async def _migration(engine: Engine, job_id: int) -> MigrationJob:
    """Return a migration that the ledger knows. Raises UsageError where it knows none with this id."""
    return await trio.to_thread.run_sync(engine.ledger.ask, partial(planning.migration, job_id=job_id))
