"""Files become instances with deliveries: folders and zip archives for ``gateway send``, single ones for whoever lacks them.

Files are read in place: their location names path, size and modification time, so a file that changes afterwards is another
one, and is not sent as what it was. Their digest is computed like that of spooled bytes, in one pass while registering: it
makes copies of one instance one instance, and other content under one SOP Instance UID a conflict. A location that the ledger
knows already is not read again. Nothing is ever deleted or changed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection

from gateway.core.domain import Content, InstanceIdentity, Mode, Priority, Provenance
from gateway.core.errors import SpoolError
from gateway.core.walk import Found, shown, walk
from gateway.dicom.sniff import DicomFile, NoInstance, sniff
from gateway.intake.directions import SEND_AE, Directions
from gateway.intake.judging import Judging, note
from gateway.intake.oddities import Oddities
from gateway.intake.storage import LOCAL_ADDRESS, SEND_ASSOCIATION, Route, asked
from gateway.intake.zips import Unpacker, is_archive
from gateway.ledger import Ledger
from gateway.ledger.received.instances import (
    SUPERSEDED,
    Arrival,
    ArrivalOutcome,
    Recorded,
    StoredInstance,
    at_locations,
    held,
    held_as_unfit,
    in_its_place,
    send_again,
    superseded_at,
)
from gateway.ledger.received.recording import record, record_anew
from gateway.spool import Spool, digest_of, file_location

BATCH_FILES = 64
BATCH_BYTES = 64 * 1024 * 1024
"""A batch is recorded in one transaction once it has this many files or bytes."""

_REASONS = {
    ArrivalOutcome.NEW: "",
    ArrivalOutcome.DUPLICATE: "the same content was there before",
    ArrivalOutcome.CONFLICT: "supersedes other content under the same SOP Instance UID",
}
_SETTLED_REASON = "nothing left to send: settled at every destination"
_UNROUTED_REASON = "no route takes it: see [[routes]], or name a destination with --to"
_OTHER_REASON = "the file holds another instance by now"


class FileOutcome(StrEnum):
    """The result of taking in one file."""

    QUEUED = "queued"
    """An instance with something to deliver."""
    SETTLED = "settled"
    """An instance that every named destination has already."""
    HELD = "held"
    """An instance that waits for a person: the reason says why."""
    UNROUTED = "unrouted"
    """An instance that no route takes and for which no destination was named: it was not taken in."""
    DUPLICATE = "duplicate"
    """Another file of the same instance: counted by whoever counts a whole run."""
    LINK = "link"
    """No file, but a symbolic link to a folder that was not followed."""
    SKIPPED = "skipped"
    """Not an instance: the reason says what it is."""
    FAILED = "failed"
    """It could not be read or kept: the reason says why."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """The result of taking in one file (``archive.zip!member`` within an archive); `length` is that of its data set in bytes.

    `to` names where it goes or went, `queued` those of them that it is still on its way to.
    """

    path: str
    outcome: FileOutcome
    reason: str = ""
    identity: InstanceIdentity | None = None
    instance_id: int | None = None
    length: int = 0
    queued: tuple[str, ...] = ()
    to: tuple[str, ...] = ()


@dataclass(slots=True)
class _Candidate:
    """One file of a batch: what is known of it before the ledger is written."""

    path: str
    event: FileEvent | None = None
    arrival: Arrival | None = None
    known: StoredInstance | None = None
    to: Mapping[str, Mode | None] = field(default_factory=dict)
    remark: str = ""


@dataclass(slots=True)
class _File:
    path: Path
    size: int
    modified_ns: int
    location: str = field(init=False)

    def __post_init__(self) -> None:
        self.location = file_location(self.path, size=self.size, modified_ns=self.modified_ns)


def register(
    paths: Sequence[Path],
    destinations: Sequence[str],
    spool: Spool,
    ledger: Ledger,
    *,
    ae_title: str,
    route: Route | None = None,
    keywords: Collection[str] = (),
    follow_links: bool = False,
    priority: Priority = Priority.NORMAL,
    recorded: Callable[[Recorded], None] = lambda _recorded: None,
    judging: Judging | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[FileEvent]:
    """Take in every instance below `paths` for `destinations`; yield one event a file, in the order of the folders.

    Where no destinations are named, `route` says of each instance where it goes, called by AE title ``send``; it asks for
    `keywords`. Instances without a route are left out. With `follow_links`, symbolic links to folders are followed. `judging` holds
    instances against their transfer syntaxes: one that is in none that can be told is held.

    Files are registered where they lie, in batches; members of zip archives are spooled. An instance registered before (same
    path, size and modification time, or same content) is only sent to destinations that have not settled it; what is held
    there is tried again. Closing the iterator stops between files; what was yielded as queued stays queued.

    Raises:
        LedgerUnavailable: the ledger takes no more; the same call carries on later.

    """
    provenance = Provenance(SEND_AE, ae_title, LOCAL_ADDRESS, SEND_ASSOCIATION)
    directions = Directions(tuple(dict.fromkeys(destinations)), route, frozenset(keywords))
    registration = _Registration(directions, spool, ledger, provenance, priority, recorded, clock, judging=judging or Judging())
    for part in _parts(walk(paths, follow_links=follow_links)):
        yield from registration.archive(part) if isinstance(part, Path) else registration.batch(part)


def bring(
    files: Mapping[str, Path],
    destination: str,
    retrieval_id: int,
    spool: Spool,
    ledger: Ledger,
    *,
    ae_title: str,
    recorded: Callable[[Recorded], None] = lambda _recorded: None,
    judging: Judging | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[FileEvent]:
    """Take in instances, by SOP Instance UID, where their files lie for `destination`, which lacks them; yield one event a file.

    They are counted to a retrieval. Unlike what `register` takes in, they are delivered whatever became of them there before, and
    whatever came under their SOP Instance UIDs since. A file that holds none of them any more is skipped. Closing the iterator
    stops between batches.

    Raises:
        LedgerUnavailable: the ledger takes no more.

    """
    provenance = Provenance(ae_title, ae_title, LOCAL_ADDRESS, SEND_ASSOCIATION)
    how = (Priority.NORMAL, recorded, clock, retrieval_id, frozenset(files))
    registration = _Registration(Directions((destination,)), spool, ledger, provenance, *how, judging=judging or Judging())
    for part in _parts(Found(Path(os.path.realpath(path))) for path in files.values()):
        if isinstance(part, Path):
            yield FileEvent(shown(part), FileOutcome.SKIPPED, _OTHER_REASON)
        else:
            yield from registration.batch(part)


@dataclass(frozen=True, slots=True)
class _Registration:
    """With a `retrieval_id`, what is `wanted` is delivered whatever became of it before."""

    directions: Directions
    spool: Spool
    ledger: Ledger
    provenance: Provenance
    priority: Priority
    recorded: Callable[[Recorded], None]
    clock: Callable[[], float]
    retrieval_id: int | None = None
    wanted: frozenset[str] = frozenset()
    judging: Judging = field(default_factory=Judging)
    oddities: Oddities = field(default_factory=Oddities)

    def batch(self, files: Sequence[Found | _File]) -> Iterator[FileEvent]:
        """Register files in place in one transaction."""
        if not files:
            return
        locations = [file.location for file in files if isinstance(file, _File)]
        known = self.ledger.ask(lambda connection: at_locations(connection, locations))
        candidates = [self._candidate(file, known) for file in files]
        if any(candidate.event is None for candidate in candidates):
            events = self.ledger.write(lambda connection: [self._decide(connection, candidate) for candidate in candidates])
        else:
            events = [(candidate.event, None) for candidate in candidates if candidate.event]
        for event, recorded in events:
            if recorded is not None:
                self.recorded(recorded)
            yield event

    def archive(self, path: Path) -> Iterator[FileEvent]:
        """Spool and register the members of an archive, one transaction each."""
        unpacker = Unpacker(
            self.spool, self.ledger, self.directions, self.provenance, self.priority, self.clock, self.oddities, self.judging
        )
        for member in unpacker.members(path):
            name = f"{shown(path)}!{member.name}" if member.name else shown(path)
            if member.unrouted:
                yield FileEvent(name, FileOutcome.UNROUTED, _UNROUTED_REASON)
            elif member.recorded is None:
                yield FileEvent(name, FileOutcome.FAILED if member.refused else FileOutcome.SKIPPED, member.reason)
            else:
                self.recorded(member.recorded)
                yield _event(name, member.recorded, member.reason)

    def _candidate(self, file: Found | _File, known: dict[str, StoredInstance]) -> _Candidate:
        path = shown(file.path)
        if isinstance(file, Found):
            outcome = FileOutcome.FAILED if file.refused else FileOutcome.LINK if file.link else FileOutcome.SKIPPED
            return _Candidate(path, event=FileEvent(path, outcome, file.reason))
        there = known.get(file.location)
        if there is not None:
            return self._again(path, file, there)
        try:
            found = _inspect(file)
            if isinstance(found, NoInstance):
                outcome = FileOutcome.FAILED if found.dicom else FileOutcome.SKIPPED
                return _Candidate(path, event=FileEvent(path, outcome, found.reason))
            instance, content = found
            to = self._directed(file, instance.identity, content)
        except OSError as error:
            return _unreadable(path, error)
        if not to:
            return _Candidate(path, event=FileEvent(path, FileOutcome.UNROUTED, _UNROUTED_REASON, instance.identity))
        self.oddities.note(instance.identity, instance.unread, SEND_ASSOCIATION)
        return self._wanted(path, instance.identity, content, to, instance.unread)

    def _again(self, path: str, file: _File, there: StoredInstance) -> _Candidate:
        """Return the candidate that a file is which the ledger knows already: it is not read for what it is."""
        try:
            to = self._directed(file, there.identity, there.content)
        except OSError as error:
            return _unreadable(path, error)
        if not to:
            return _Candidate(path, event=FileEvent(path, FileOutcome.UNROUTED, _UNROUTED_REASON, there.identity))
        if self.retrieval_id:
            return self._wanted(path, there.identity, there.content, to)
        return _Candidate(path, known=there, to=to)

    def _directed(self, file: _File, identity: InstanceIdentity, content: Content) -> Mapping[str, Mode | None]:
        """Return where the instance in `file` goes. Raises OSError."""
        if not self.directions.keywords or self.directions.named:
            return self.directions.of(identity, self.provenance, lambda _offset, _size: b"")
        with file.path.open("rb") as data:
            begin = content.offset
            return self.directions.of(identity, self.provenance, lambda offset, size: os.pread(data.fileno(), size, begin + offset))

    def _wanted(
        self, path: str, identity: InstanceIdentity, content: Content, to: Mapping[str, Mode | None], remark: str = ""
    ) -> _Candidate:
        if self.retrieval_id and identity.sop_instance_uid not in self.wanted:
            return _Candidate(path, event=FileEvent(path, FileOutcome.SKIPPED, _OTHER_REASON))
        now, retrieval_id = self.clock(), self.retrieval_id
        try:
            judgement = self.judging.of_spooled(self.spool, content, identity.transfer_syntax_uid)
        except SpoolError as error:
            return _Candidate(path, event=FileEvent(path, FileOutcome.FAILED, str(error)))
        note(identity, judgement, SEND_ASSOCIATION)
        identity = replace(identity, transfer_syntax_uid=judgement.transfer_syntax_uid)
        arrival = Arrival(identity, self.provenance, content, tuple(to), now, retrieval_id, asked(to), self.priority)
        return _Candidate(path, arrival=replace(arrival, unfit=judgement.unfit), remark=remark)

    def _decide(self, connection: Connection, candidate: _Candidate) -> tuple[FileEvent, Recorded | None]:
        if candidate.arrival is not None:
            arrival = candidate.arrival
            recorded = record_anew(connection, arrival) if self.retrieval_id else record(connection, arrival, again=False)
            return _event(candidate.path, recorded, candidate.remark), recorded
        if candidate.known is not None:
            return self._known(connection, candidate.path, candidate.known, candidate.to), None
        assert candidate.event is not None
        return candidate.event, None

    def _known(self, connection: Connection, path: str, known: StoredInstance, to: Mapping[str, Mode | None]) -> FileEvent:
        names = tuple(to)
        known = in_its_place(connection, known, names)
        queued = send_again(connection, known.id, names, now=self.clock(), modes=asked(to), priority=self.priority)
        outcome, reason = FileOutcome.QUEUED, ""
        if not queued:
            superseded = superseded_at(connection, known.id, names)
            waits = _superseded(superseded) if superseded else held(connection, known.id, names)
            outcome, reason = (FileOutcome.HELD, waits) if waits else (FileOutcome.SETTLED, _SETTLED_REASON)
        return FileEvent(path, outcome, reason, known.identity, known.id, known.content.length, queued, names)


def _unreadable(path: str, error: OSError) -> _Candidate:
    return _Candidate(path, event=FileEvent(path, FileOutcome.FAILED, error.strerror or error.__class__.__name__))


def _superseded(destinations: Sequence[str]) -> str:
    return f"{SUPERSEDED}, which is newer at {', '.join(destinations)}; `gateway queue retry` with its number sends it all the same"


def _event(path: str, recorded: Recorded, remark: str) -> FileEvent:
    arrival = recorded.arrival
    outcome = FileOutcome.QUEUED if recorded.queued else FileOutcome.SETTLED
    reason = _REASONS[recorded.outcome] if recorded.queued else _SETTLED_REASON
    if unfit := held_as_unfit(arrival.unfit):
        outcome, reason = FileOutcome.HELD, unfit
    reason = "; ".join(filter(None, (reason, remark)))
    length, to = arrival.content.length, arrival.destinations
    return FileEvent(path, outcome, reason, arrival.identity, recorded.instance_id, length, recorded.queued, to)


def _parts(files: Iterable[Found]) -> Iterator[list[Found | _File] | Path]:
    """Yield files in batches, and archives one by one."""
    batch: list[Found | _File] = []
    size = 0
    for found in files:
        file = _stat(found)
        if isinstance(file, _File) and is_archive(file.path):
            yield batch
            batch, size = [], 0
            yield file.path
            continue
        batch.append(file)
        size += file.size if isinstance(file, _File) else 0
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _stat(found: Found) -> Found | _File:
    if found.reason:
        return found
    try:
        status = found.path.stat()
    except OSError as error:
        return Found(found.path, error.strerror or error.__class__.__name__, refused=True)
    return _File(found.path, status.st_size, status.st_mtime_ns)


def _inspect(file: _File) -> tuple[DicomFile, Content] | NoInstance:
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = sniff(lambda offset, size: os.pread(descriptor, size, offset), file.size)
        if isinstance(found, NoInstance):
            return found
        length = file.size - found.offset
        digest = digest_of(descriptor, found.offset, length)
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (file.size, file.modified_ns):
        return NoInstance("the file changes while it is read", dicom=True)
    return found, Content(file.location, found.offset, length, digest)
