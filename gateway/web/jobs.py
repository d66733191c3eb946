"""Long operations for a client: pull and send, each a stream of events that ends with what became of every instance.

Both end in the same way: once everything is here, they wait until each delivery in their scope is verified, held or dropped,
telling how far it is, and close with ``summary``. Runs on trio; files and ledger on threads. Leaving early loses nothing: what
was queued stays queued, and the same request carries on.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import trio

from gateway.engine import Engine, Role
from gateway.errors import UsageError, require_known
from gateway.intake import FileEvent, FileOutcome, register
from gateway.ledger import progress
from gateway.ledger.instances import ArrivalOutcome, Recorded
from gateway.ledger.progress import Scope, StudyDelivery, Undelivered
from gateway.retrieve import PullRequest
from gateway.retrieve.events import JobEnded, StudyEnded, Verdict, to_json
from gateway.web.server import Emit
from gateway.web.wire import Document, PullCommand, SendCommand

LOOK_S = 0.25
"""Between two looks at the ledger while waiting for deliveries; more where one look takes long."""

LOOK_SHARE = 10
"""A waiting client costs the gateway no more than one part in this many of its time."""

BATCH_FILES = 200
"""Files taken in before the client hears of them."""

BATCH_S = 0.5
"""How long files are taken in before the client hears of them and may stop it."""


@dataclass(frozen=True)
class Outcome:
    """What the waiting for deliveries ended with."""

    states: Sequence[StudyDelivery]
    undelivered: Sequence[Undelivered]
    unrouted: int

    @property
    def done(self) -> bool:
        """Tell whether everything is verified at every destination it was routed to, and nothing is without a route."""
        return not self.undelivered and self.unrouted == 0


async def pull(engine: Engine, command: PullCommand, emit: Emit) -> None:
    """Retrieve studies, stream the retriever's events, then wait for the deliveries of what came.

    Raises:
        UsageError: the request names no such source, or names the studies in no or several ways.
        GatewayStopping: the gateway is told to stop meanwhile.

    """
    needs_everything(engine)
    request = PullRequest(
        source=command.source,
        study_uids=command.study_uids,
        accession_numbers=command.accession_numbers,
        patient_ids=command.patient_ids,
        query=command.query,
        skip_existing=command.skip_existing,
        destinations=command.destinations,
        priority=command.priority,
    )
    async with engine.jobs.running():
        verdicts, ended = await _retrieve(engine, request, emit)
        scope = Scope(job_id=ended.job_id, destinations=command.destinations)
        outcome = await deliver(engine, scope, command.wait, command.wait_s, emit)
        await emit(_pull_summary(verdicts, ended, outcome))


async def _retrieve(engine: Engine, request: PullRequest, emit: Emit) -> tuple[list[Verdict], JobEnded]:
    verdicts: list[Verdict] = []
    ended = JobEnded(job_id=None, error="the pull ended without a result")
    async with engine.retriever.pull(request) as events:
        async for event in events:
            if isinstance(event, StudyEnded):
                verdicts.append(event.verdict)
            if isinstance(event, JobEnded):
                ended = event
            await emit(to_json(event))
    return verdicts, ended


def _pull_summary(verdicts: Sequence[Verdict], ended: JobEnded, outcome: Outcome) -> Document:
    studies = [
        asdict(verdict) | {"destinations": by_destination(outcome.states, verdict.study_instance_uid)} for verdict in verdicts
    ]
    return {
        "event": "summary",
        "studies": studies,
        "error": ended.error,
        "complete": ended.all_complete,
        "done": ended.all_complete and outcome.done,
        **delivered(outcome),
    }


def delivered(outcome: Outcome) -> Document:
    """Return what became of deliveries as it stands in a summary."""
    return {
        "delivered": outcome.done,
        "unrouted": outcome.unrouted,
        "undelivered": [asdict(one) for one in outcome.undelivered],
    }


def by_destination(states: Sequence[StudyDelivery], study: str | None = None) -> Document:
    """Sum the deliveries, of one study or of all: destination to ``{"states": …, "proofs": …}``; pure."""
    summed: dict[str, dict[str, dict[str, int]]] = {}
    for row in states:
        if study is not None and row.study_instance_uid != study:
            continue
        of = summed.setdefault(row.destination, {"states": {}, "proofs": {}})
        of["states"][row.state] = of["states"].get(row.state, 0) + row.count
        if row.proof is not None:
            of["proofs"][row.proof] = of["proofs"].get(row.proof, 0) + row.count
    return dict(summed)


async def send(engine: Engine, command: SendCommand, emit: Emit) -> None:
    """Take in files for the named destinations, stream what became of each, then wait for the deliveries.

    Raises:
        UsageError: a path or a destination is not there.
        GatewayStopping: the gateway is told to stop meanwhile.

    """
    needs_everything(engine)
    paths = _existing(command.paths)
    destinations = engine.settings.destinations
    if not command.to:
        raise UsageError(f"name a destination (known: {', '.join(destinations) or 'none'})")
    require_known("destination", command.to, destinations)
    async with engine.jobs.running():
        taken = Taken()
        with closing(_registering(engine, paths, command)) as events:
            while batch := await trio.to_thread.run_sync(_batch, events):
                taken.add(batch)
                await emit({"event": "files", **taken.counted()})
        scope = Scope(instance_ids=tuple(taken.files), destinations=tuple(command.to))
        outcome = await deliver(engine, scope, command.wait, command.wait_s, emit)
        await emit(_send_summary(taken, outcome))


@dataclass
class Taken:
    """What became of the files of a send so far."""

    counts: Counter[FileOutcome] = field(default_factory=Counter)
    size_bytes: int = 0
    files: dict[int, str] = field(default_factory=dict)
    refused: list[FileEvent] = field(default_factory=list)

    def add(self, batch: Sequence[FileEvent]) -> None:
        """Count a batch; an instance found in several files is remembered by the first."""
        for event in batch:
            self.counts[event.outcome] += 1
            self.size_bytes += event.length
            if event.instance_id is not None:
                self.files.setdefault(event.instance_id, event.path)
            if event.outcome in {FileOutcome.SKIPPED, FileOutcome.FAILED, FileOutcome.HELD}:
                self.refused.append(event)

    def counted(self) -> Document:
        """Return the counts as they cross the socket."""
        return {"counts": {str(kind): self.counts[kind] for kind in FileOutcome}, "size_bytes": self.size_bytes}


def _send_summary(taken: Taken, outcome: Outcome) -> Document:
    failed, held = taken.counts[FileOutcome.FAILED], taken.counts[FileOutcome.HELD]
    nothing = not taken.files
    undelivered = [asdict(one) | {"path": taken.files.get(one.instance_id, "")} for one in outcome.undelivered]
    refused = [{"path": event.path, "outcome": str(event.outcome), "reason": event.reason} for event in taken.refused]
    return {
        "event": "summary",
        **taken.counted(),
        "instances": len(taken.files),
        "files": refused,
        "destinations": by_destination(outcome.states),
        "undelivered": undelivered,
        "delivered": not (outcome.undelivered or held),
        "done": not (outcome.undelivered or failed or held or nothing),
    }


def _registering(engine: Engine, paths: Sequence[Path], command: SendCommand) -> Generator[FileEvent, None, None]:
    """Take in files as they are asked for, so that a client that leaves stops it between files."""

    def recorded(what: Recorded) -> None:
        for name in what.queued:
            engine.dispatcher.nudge(name)
        if what.outcome is ArrivalOutcome.CONFLICT:
            engine.conflicts.found()

    ae_title = engine.settings.gateway.ae_title
    spool, ledger, priority = engine.spool, engine.ledger, command.priority
    yield from register(paths, command.to, spool, ledger, ae_title=ae_title, priority=priority, recorded=recorded)


def _batch(events: Iterator[FileEvent]) -> list[FileEvent]:
    batch: list[FileEvent] = []
    end = time.monotonic() + BATCH_S
    for event in events:
        batch.append(event)
        if len(batch) >= BATCH_FILES or time.monotonic() >= end:
            break
    return batch


def needs_everything(engine: Engine) -> None:
    """Refuse what a desk cannot do.

    Raises:
        UsageError: only a desk runs.

    """
    if engine.role is not Role.GATEWAY:
        raise UsageError("another command has the state folder open for a moment; try again")


def _existing(paths: Sequence[str]) -> list[Path]:
    missing = [path for path in paths if not Path(path).exists()]
    if missing or not paths:
        raise UsageError(f"no such file or folder: {', '.join(missing)}" if missing else "name a file, a folder or a zip archive")
    return [Path(path) for path in paths]


async def deliver(engine: Engine, scope: Scope, wait: bool, wait_s: float | None, emit: Emit) -> Outcome:
    """Wait until nothing in `scope` is worked on any more, or `wait_s` passed, telling each change; return what it came to."""
    deadline = trio.current_time() + wait_s if wait_s is not None else math.inf
    told: Document = {}
    while wait:
        started = trio.current_time()
        states = await trio.to_thread.run_sync(_states, engine, scope)
        now = {"working": sum(row.count for row in states if row.state in progress.WORKING), "destinations": by_destination(states)}
        if now != told:
            told = now
            await emit({"event": "delivering", **now})
        if not now["working"] or trio.current_time() >= deadline:
            break
        await trio.sleep(max(LOOK_S, LOOK_SHARE * (trio.current_time() - started)))
    return await trio.to_thread.run_sync(_outcome, engine, scope)


def _states(engine: Engine, scope: Scope) -> list[StudyDelivery]:
    engine.recorder.flush()
    with engine.ledger.read() as connection:
        return progress.count_states(connection, scope)


def _outcome(engine: Engine, scope: Scope) -> Outcome:
    engine.recorder.flush()
    with engine.ledger.read() as connection:
        return Outcome(
            states=progress.count_states(connection, scope),
            undelivered=progress.undelivered(connection, scope),
            unrouted=0 if scope.destinations else progress.unrouted(connection, scope),
        )
