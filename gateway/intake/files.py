"""The input of ``gateway send``: files, folders and zip archives become instances with deliveries.

Files are read in place: their location names path, size and modification time, so a file that changes afterwards is another
one, and is not sent as what it was. Their digest is computed like that of spooled bytes, in one pass while registering: it
makes copies of one instance one instance, and other content under one SOP Instance UID a conflict. A location that the ledger
knows already is not read again. Nothing is ever deleted or changed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection

from gateway.domain import Content, InstanceIdentity, Priority, Provenance
from gateway.intake.archives import Unpacker, is_archive
from gateway.intake.sniff import NoInstance, sniff
from gateway.intake.storage import LOCAL_ADDRESS, SEND_ASSOCIATION
from gateway.intake.walk import Found, shown, walk
from gateway.ledger import Ledger
from gateway.ledger.instances import (
    SUPERSEDED,
    Arrival,
    ArrivalOutcome,
    Recorded,
    StoredInstance,
    at_locations,
    held,
    send_again,
)
from gateway.ledger.recording import record
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


class FileOutcome(StrEnum):
    """What became of one file."""

    QUEUED = "queued"
    """An instance with something to deliver."""
    SETTLED = "settled"
    """An instance that every named destination has already, or is no longer owed."""
    HELD = "held"
    """An instance that waits for a person: the reason says why."""
    SKIPPED = "skipped"
    """Not an instance: the reason says what it is."""
    FAILED = "failed"
    """It could not be read or kept: the reason says why."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """What became of one file (``archive.zip!member`` within an archive); `length` is that of its data set in bytes."""

    path: str
    outcome: FileOutcome
    reason: str = ""
    identity: InstanceIdentity | None = None
    instance_id: int | None = None
    length: int = 0
    queued: tuple[str, ...] = ()


@dataclass(slots=True)
class _Candidate:
    """One file of a batch: what is known of it before the ledger is written."""

    path: str
    event: FileEvent | None = None
    arrival: Arrival | None = None
    known: StoredInstance | None = None


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
    priority: Priority = Priority.NORMAL,
    recorded: Callable[[Recorded], None] = lambda _recorded: None,
    clock: Callable[[], float] = time.time,
) -> Iterator[FileEvent]:
    """Take in every instance below `paths` for `destinations`; yield one event a file, in the order of the folders.

    Files are registered where they lie, in batches; members of zip archives are spooled. What was registered before (same
    path, size and modification time, or same content) is only sent to destinations that have not settled it; what is held
    there is tried again. Closing the iterator stops between files; what was yielded as queued stays queued.

    Raises:
        LedgerUnavailable: the ledger takes no more; the same call carries on later.

    """
    provenance = Provenance(ae_title, ae_title, LOCAL_ADDRESS, SEND_ASSOCIATION)
    registration = _Registration(tuple(dict.fromkeys(destinations)), spool, ledger, provenance, priority, recorded, clock)
    batch: list[Found | _File] = []
    size = 0
    for found in walk(paths):
        file = _stat(found)
        if isinstance(file, _File) and is_archive(file.path):
            yield from registration.batch(batch)
            batch, size = [], 0
            yield from registration.archive(file.path)
            continue
        batch.append(file)
        size += file.size if isinstance(file, _File) else 0
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield from registration.batch(batch)
            batch, size = [], 0
    yield from registration.batch(batch)


@dataclass(frozen=True, slots=True)
class _Registration:
    destinations: tuple[str, ...]
    spool: Spool
    ledger: Ledger
    provenance: Provenance
    priority: Priority
    recorded: Callable[[Recorded], None]
    clock: Callable[[], float]

    def batch(self, files: Sequence[Found | _File]) -> Iterator[FileEvent]:
        """Register files in place in one transaction."""
        if not files:
            return
        with self.ledger.read() as connection:
            known = at_locations(connection, [file.location for file in files if isinstance(file, _File)])
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
        unpacker = Unpacker(self.spool, self.ledger, self.destinations, self.provenance, self.priority, self.clock)
        for member in unpacker.members(path):
            name = f"{shown(path)}!{member.name}" if member.name else shown(path)
            if member.recorded is None:
                yield FileEvent(name, FileOutcome.FAILED if member.refused else FileOutcome.SKIPPED, member.reason)
            else:
                self.recorded(member.recorded)
                yield _event(name, member.recorded)

    def _candidate(self, file: Found | _File, known: dict[str, StoredInstance]) -> _Candidate:
        path = shown(file.path)
        if isinstance(file, Found):
            outcome = FileOutcome.FAILED if file.refused else FileOutcome.SKIPPED
            return _Candidate(path, event=FileEvent(path, outcome, file.reason))
        if file.location in known:
            return _Candidate(path, known=known[file.location])
        try:
            found = _inspect(file)
        except OSError as error:
            return _Candidate(path, event=FileEvent(path, FileOutcome.FAILED, error.strerror or error.__class__.__name__))
        if isinstance(found, NoInstance):
            outcome = FileOutcome.FAILED if found.dicom else FileOutcome.SKIPPED
            return _Candidate(path, event=FileEvent(path, outcome, found.reason))
        identity, content = found
        arrival = Arrival(identity, self.provenance, content, self.destinations, self.clock(), priority=self.priority)
        return _Candidate(path, arrival=arrival)

    def _decide(self, connection: Connection, candidate: _Candidate) -> tuple[FileEvent, Recorded | None]:
        if candidate.arrival is not None:
            recorded = record(connection, candidate.arrival, again=False)
            return _event(candidate.path, recorded), recorded
        if candidate.known is not None:
            return self._known(connection, candidate.path, candidate.known), None
        assert candidate.event is not None
        return candidate.event, None

    def _known(self, connection: Connection, path: str, known: StoredInstance) -> FileEvent:
        queued = send_again(connection, known.id, self.destinations, now=self.clock(), priority=self.priority)
        outcome, reason = FileOutcome.QUEUED, ""
        if not queued:
            waits = held(connection, known.id, self.destinations)
            outcome, reason = (FileOutcome.HELD, SUPERSEDED) if waits else (FileOutcome.SETTLED, _SETTLED_REASON)
        return FileEvent(path, outcome, reason, known.identity, known.id, known.content.length, queued)


def _event(path: str, recorded: Recorded) -> FileEvent:
    arrival = recorded.arrival
    outcome = FileOutcome.QUEUED if recorded.queued else FileOutcome.SETTLED
    reason = _REASONS[recorded.outcome] if recorded.queued else _SETTLED_REASON
    return FileEvent(path, outcome, reason, arrival.identity, recorded.instance_id, arrival.content.length, recorded.queued)


def _stat(found: Found) -> Found | _File:
    if found.reason:
        return found
    try:
        status = found.path.stat()
    except OSError as error:
        return Found(found.path, error.strerror or error.__class__.__name__, refused=True)
    return _File(found.path, status.st_size, status.st_mtime_ns)


def _inspect(file: _File) -> tuple[InstanceIdentity, Content] | NoInstance:
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = sniff(lambda offset, size: os.pread(descriptor, size, offset))
        if isinstance(found, NoInstance):
            return found
        content = Content(file.location, found.offset, file.size - found.offset, "")
        digest = digest_of(descriptor, content.offset, content.length)
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (file.size, file.modified_ns):
        return NoInstance("the file changes while it is read", dicom=True)
    return found.identity, Content(content.location, content.offset, content.length, digest)
