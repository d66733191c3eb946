"""Long operations for a client: a pull as a stream of events, and what it has in common with a send (`sending`).

Both end in the same way: once everything is here, they wait until each delivery in their scope is verified, held or dropped,
telling how far it is, and close with ``summary``. Runs on trio; files and ledger on threads. Leaving early loses nothing: what
was queued stays queued, and the same request carries on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import trio

from gateway.app.engine import Engine
from gateway.app.skip_existing import possible_destinations
from gateway.config.settings import Settings
from gateway.control.events import Delivering
from gateway.control.server import Emit
from gateway.control.wire import Document, PullCommand, Summary
from gateway.core.domain import WORKING, Role
from gateway.core.errors import UsageError, require_known
from gateway.jobs.migrate.report import by_destination
from gateway.ledger.deliveries import progress
from gateway.ledger.deliveries.progress import Scope, StudyDelivery, Undelivered
from gateway.ledger.received.instances import SUPERSEDED
from gateway.retrieve import PullRequest
from gateway.retrieve.events import JobEnded, StudyEnded, Verdict

LOOK_S = 0.25
"""Between two looks at the ledger while waiting for deliveries; more where one look takes long."""

LOOK_SHARE = 10
"""A waiting client costs the gateway no more than one part in this many of its time."""


@dataclass(frozen=True)
class Outcome:
    """The result of waiting for deliveries."""

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
        ConfigurationError: the source is to call us, and we cannot listen.
        GatewayStopping: the gateway is told to stop meanwhile.

    """
    request = request_of(engine.settings, command)
    if command.dry_run:
        await emit(await _would_pull(engine, request))
        return
    needs_everything(engine)
    async with engine.jobs.running():
        verdicts, ended = await _retrieve(engine, request, emit)
        scope = Scope(job_id=ended.job_id, destinations=command.destinations)
        outcome = await deliver(engine, scope, command.wait, command.wait_s, emit)
        await emit(_pull_summary(verdicts, ended, outcome))


def request_of(settings: Settings, command: PullCommand) -> PullRequest:
    """Return what the retriever is asked; pure.

    Raises:
        UsageError: it names no such source or destination, or names the studies in no or several ways.
    """
    require_known("source", [command.source], settings.sources)
    require_known("destination", command.destinations, settings.destinations)
    return PullRequest(
        source=command.source,
        study_uids=command.study_uids,
        accession_numbers=command.accession_numbers,
        patient_ids=command.patient_ids,
        query=command.query,
        skip_existing=command.skip_existing,
        destinations=command.destinations,
        priority=command.priority,
    )


async def _would_pull(engine: Engine, request: PullRequest) -> Summary:
    """Return what the source lists of what is asked for; nothing is moved, and nothing recorded."""
    from gateway.control.commands.peers import finder

    to = request.destinations or possible_destinations(engine.settings, request.source)
    studies: dict[str, Document] = {}
    unknown: list[str] = []
    find = finder(engine, request.source)
    for keys in request.keys():  # noqa: SIM118 - a method of ours
        matches = await find({**dict.fromkeys(_TOLD, ""), **keys})
        if not matches:
            unknown.append(", ".join(f"{keyword} {value}" for keyword, value in keys.items()))
        for match in matches:
            studies.setdefault(match.get("StudyInstanceUID", ""), {keyword: match.get(keyword, "") for keyword in _TOLD})
    rows = [
        {
            "study_instance_uid": uid,
            "date": one["StudyDate"],
            "modalities": one["ModalitiesInStudy"],
            "instances": int(one["NumberOfStudyRelatedInstances"]) if one["NumberOfStudyRelatedInstances"].isdecimal() else None,
        }
        for uid, one in studies.items()
    ]
    found = {"studies": rows, "not_found": len(unknown), "not_listed": unknown}
    return Summary({"dry_run": True, "detached": False, "to": list(to), **found})


_TOLD = ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")


async def _retrieve(engine: Engine, request: PullRequest, emit: Emit) -> tuple[list[Verdict], JobEnded]:
    verdicts: list[Verdict] = []
    ended = JobEnded(job_id=None, error="the pull ended without a result")
    async with engine.retriever.pull(request) as events:
        async for event in events:
            if isinstance(event, StudyEnded):
                verdicts.append(event.verdict)
            if isinstance(event, JobEnded):
                ended = event
            await emit(event)
    return verdicts, ended


def _pull_summary(verdicts: Sequence[Verdict], ended: JobEnded, outcome: Outcome) -> Summary:
    studies = [
        asdict(verdict) | {"destinations": by_destination(outcome.states, verdict.study_instance_uid)} for verdict in verdicts
    ]
    return Summary(
        {
            "detached": False,
            "studies": studies,
            "error": ended.error,
            "complete": ended.all_complete,
            "done": ended.all_complete and outcome.done,
            **delivered(outcome),
        }
    )


def delivered(outcome: Outcome) -> Document:
    """Return what became of deliveries as it stands in a summary."""
    return {
        "delivered": outcome.done,
        "unrouted": outcome.unrouted,
        "undelivered": [asdict(one) for one in outcome.undelivered],
    }


def needs_everything(engine: Engine) -> None:
    """Refuse what a desk cannot do.

    Raises:
        UsageError: only a desk runs.

    """
    if engine.role is not Role.GATEWAY:
        raise UsageError("another command has the state folder open for a moment; try again")


async def deliver(engine: Engine, scope: Scope, wait: bool, wait_s: float | None, emit: Emit) -> Outcome:
    """Wait until nothing in `scope` is worked on any more, or `wait_s` passed, telling each change; return what it came to."""
    deadline = trio.current_time() + wait_s if wait_s is not None else math.inf
    told: Delivering | None = None
    while wait:
        started = trio.current_time()
        states = await trio.to_thread.run_sync(_states, engine, scope)
        now = Delivering(sum(row.count for row in states if row.state in WORKING), by_destination(states))
        if now != told:
            told = now
            await emit(now)
        if not now.working or trio.current_time() >= deadline:
            break
        await trio.sleep(max(LOOK_S, LOOK_SHARE * (trio.current_time() - started)))
    outcome = await trio.to_thread.run_sync(_outcome, engine, scope)
    superseded = [one.instance_id for one in outcome.undelivered if one.reason == SUPERSEDED]
    if not (wait and superseded):
        return outcome
    # Nothing is worked on any more; without `gateway serve`, nobody would compare them afterwards.
    with trio.move_on_at(deadline):
        await engine.conflicts.compare(superseded)
    return await trio.to_thread.run_sync(_outcome, engine, scope)


def _states(engine: Engine, scope: Scope) -> list[StudyDelivery]:
    return engine.ledger.ask(partial(progress.count_states, scope=scope), after=engine.recorder.flush)


def _outcome(engine: Engine, scope: Scope) -> Outcome:
    engine.recorder.flush()
    with engine.ledger.read() as connection:
        return Outcome(
            states=progress.count_states(connection, scope),
            undelivered=progress.undelivered(connection, scope),
            unrouted=0 if scope.destinations else progress.unrouted(connection, scope),
        )
