"""``POST /send``: files taken in for the named destinations, or for those where the routes lead, as a stream of events.

It ends as a pull does, with what became of every instance; before that it tells what became of every file, and the numbers add up:
each file found is counted once, under one outcome. Runs on trio; files and ledger on threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.app.engine import Engine
from gateway.config.settings import Settings
from gateway.control.commands.batches import next_batch
from gateway.control.commands.pulling import Outcome, deliver, needs_everything
from gateway.control.events import FilesRead
from gateway.control.server import Emit
from gateway.control.wire import Document, SendCommand, Summary
from gateway.core.errors import UsageError, require_known
from gateway.intake import FileEvent, FileOutcome, Judging, register
from gateway.jobs.migrate.report import by_destination
from gateway.ledger import Ledger
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.received import instances
from gateway.ledger.received.instances import ArrivalOutcome, Recorded
from gateway.route import compile_routes, route
from gateway.spool import Spool

PREVIEW_PREFIX = "previewing-"
"""Of the folders for what a dry run writes, below the state folder."""

_LISTED = (FileOutcome.FAILED, FileOutcome.HELD, FileOutcome.UNROUTED, FileOutcome.LINK, FileOutcome.SKIPPED)
"""Outcomes whose files the summary names, in this order: what may be missed first."""


async def send(engine: Engine, command: SendCommand, emit: Emit) -> None:
    """Take in files, stream what became of each, then wait for the deliveries.

    Raises:
        UsageError: a path or a destination is not there, or there is neither a destination nor a route.
        ConfigurationError: a destination reports its commitments by calling us, and we cannot listen.
        GatewayStopping: the gateway is told to stop meanwhile.

    """
    paths, to = existing(command.paths), possible(engine.settings, command.to)
    if command.dry_run:
        await _would_send(engine, paths, command, emit)
        return
    needs_everything(engine)
    if calls_back(engine.settings, to):
        await engine.listener.open()
    async with engine.jobs.running():
        taken = Taken()
        with closing(_registering(engine, paths, command)) as events:
            while batch := await next_batch(events):
                taken.add(batch)
                await emit(FilesRead(**taken.counted()))
        scope = Scope(instance_ids=tuple(taken.files), destinations=tuple(taken.to))
        outcome = await deliver(engine, scope, command.wait, command.wait_s, emit)
        await emit(_summary(taken, outcome))


@dataclass
class Taken:
    """The results for the files of a send so far."""

    counts: Counter[FileOutcome] = field(default_factory=Counter)
    size_bytes: int = 0
    files: dict[int, str] = field(default_factory=dict)
    to: dict[str, None] = field(default_factory=dict)
    listed: list[FileEvent] = field(default_factory=list)

    def add(self, batch: Sequence[FileEvent]) -> list[FileEvent]:
        """Count a batch; an instance found in several files is the first of them, and the others are duplicates.

        Returns the events of the instances that are new to this send.
        """
        new = []
        for event in batch:
            one = replace(event, outcome=FileOutcome.DUPLICATE) if event.instance_id in self.files else event
            self.counts[one.outcome] += 1
            if one.instance_id is not None and one.outcome is not FileOutcome.DUPLICATE:
                self.files[one.instance_id] = one.path
                self.size_bytes += one.length
                self.to.update(dict.fromkeys(one.to))
                new.append(one)
            if one.outcome in _LISTED:
                self.listed.append(one)
        return new

    def counted(self) -> Document:
        """Return the counts as they cross the socket; those of the outcomes add up to the files that were found."""
        counts = {str(kind): self.counts[kind] for kind in FileOutcome if kind is not FileOutcome.LINK}
        return {"found": sum(counts.values()), "counts": counts, "size_bytes": self.size_bytes}


def _summary(taken: Taken, outcome: Outcome) -> Summary:
    failed, held, unrouted = (taken.counts[one] for one in (FileOutcome.FAILED, FileOutcome.HELD, FileOutcome.UNROUTED))
    nothing = not taken.files
    undelivered = [asdict(one) | {"path": taken.files.get(one.instance_id, "")} for one in outcome.undelivered]
    listed = sorted(taken.listed, key=lambda event: _LISTED.index(event.outcome))
    return Summary(
        {
            "detached": False,
            **taken.counted(),
            "instances": len(taken.files),
            "files": [{"path": event.path, "outcome": str(event.outcome), "reason": event.reason} for event in listed],
            "unrouted": unrouted,
            "destinations": by_destination(outcome.states),
            "undelivered": undelivered,
            "delivered": not (outcome.undelivered or held),
            "done": not (outcome.undelivered or failed or held or unrouted or nothing),
        }
    )


async def _would_send(engine: Engine, paths: Sequence[Path], command: SendCommand, emit: Emit) -> None:
    """Tell what would become of the files; nothing is sent, and what is written goes with a folder of its own."""
    taken, to = Taken(), Counter[str]()
    with closing(_previewed(engine, paths, command, engine.judging)) as events:
        while batch := await next_batch(events):
            to.update(name for event in taken.add(batch) for name in event.queued)
            await emit(FilesRead(**taken.counted()))
    would = {name: {"states": {"to be sent": count}, "proofs": {}} for name, count in to.items()}
    await emit(Summary({**_summary(taken, Outcome([], [], 0)).report, "dry_run": True, "destinations": would}))


def _previewed(engine: Engine, paths: Sequence[Path], command: SendCommand, judging: Judging) -> Generator[FileEvent, None, None]:
    """Take files in as a send does, into a spool and a ledger that are thrown away; what is settled already is told from ours."""
    with (
        TemporaryDirectory(prefix=PREVIEW_PREFIX, dir=engine.settings.gateway.state) as folder,
        Spool(Path(folder) / "spool", reserve_bytes=engine.settings.spool.reserve_bytes) as spool,
        Ledger(Path(folder) / "ledger.db") as ledger,
    ):

        def recorded(what: Recorded) -> None:
            # Members of archives only: nothing of a file in place was written.
            if what.bytes_needed:
                spool.remove(what.arrival.content.location)

        taken_in = _taken_in(engine.settings, paths, command, spool=spool, ledger=ledger, judging=judging, recorded=recorded)
        for event in taken_in:
            yield _settled(engine.ledger, ledger, event)


def _settled(ours: Ledger, scratch: Ledger, event: FileEvent) -> FileEvent:
    """Return the event of a preview, as settled where every destination has the instance already."""
    if event.outcome is not FileOutcome.QUEUED or event.identity is None or event.instance_id is None:
        return event
    with scratch.read() as connection:
        mine = instances.get(connection, event.instance_id)
    with ours.read() as connection:
        for known in instances.find(connection, event.identity.sop_instance_uid):
            same = mine is not None and (known.content.digest, known.content.length) == (mine.content.digest, mine.content.length)
            if same and instances.verified(connection, known.id, event.to):
                return replace(event, outcome=FileOutcome.SETTLED, queued=())
    return event


def _registering(engine: Engine, paths: Sequence[Path], command: SendCommand) -> Generator[FileEvent, None, None]:
    """Take in files as they are asked for, so that a client that leaves stops it between files."""

    def recorded(what: Recorded) -> None:
        for name in what.queued:
            engine.dispatcher.nudge(name)
        if what.outcome is ArrivalOutcome.CONFLICT:
            engine.conflicts.found()

    spool, ledger, judging = engine.spool, engine.ledger, engine.judging
    yield from _taken_in(engine.settings, paths, command, spool=spool, ledger=ledger, judging=judging, recorded=recorded)


def _taken_in(
    settings: Settings,
    paths: Sequence[Path],
    command: SendCommand,
    *,
    spool: Spool,
    ledger: Ledger,
    judging: Judging,
    recorded: Callable[[Recorded], None],
) -> Iterator[FileEvent]:
    rules = compile_routes(settings.routes)
    return register(
        paths,
        command.to,
        spool,
        ledger,
        ae_title=settings.gateway.ae_title,
        route=partial(route, rules),
        keywords=rules.keywords,
        follow_links=command.follow_links,
        priority=command.priority,
        recorded=recorded,
        judging=judging,
    )


def existing(paths: Sequence[str]) -> list[Path]:
    """Return `paths`. Raises UsageError where one is not there."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing or not paths:
        raise UsageError(f"no such file or folder: {', '.join(missing)}" if missing else "name a file, a folder or a zip archive")
    return [Path(path) for path in paths]


def possible(settings: Settings, named: Sequence[str]) -> tuple[str, ...]:
    """Return the destinations that files may go to: those `named`, else all to which a route leads; pure.

    Raises:
        UsageError: a name is no destination's, or none is named and there is no route.
    """
    require_known("destination", named, settings.destinations)
    found = tuple(dict.fromkeys(named or (name for rule in settings.routes for name in rule.to)))
    if not found:
        known = ", ".join(settings.destinations) or "none"
        raise UsageError(f"no route is configured: name a destination with --to (known: {known}), or add one to [[routes]]")
    return found


def calls_back(settings: Settings, names: Sequence[str]) -> bool:
    """Tell whether one of the destinations reports by calling us (Storage Commitment, PS3.4 §J); pure."""
    return any(settings.destinations[name].can.commit is not None for name in names)
