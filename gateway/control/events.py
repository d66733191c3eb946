"""The messages of the streams of the control API, beside the events of `gateway.retrieve` and the cycles of a sync. Pure.

Each is one line of a stream, made and read by `gateway.control.wire`. A stream ends with a `Summary`; the tuples at the end say
which messages each stream has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.control.wire import Summary
from gateway.jobs.sync.cycle import Cycle
from gateway.retrieve.events import JobEnded, JobStarted, Progress, Repairing, StudyEnded, StudyPlanned, Waiting


@dataclass(frozen=True)
class Delivering:
    """The deliveries of what was taken in: how many are still worked on, and states and proofs by destination."""

    name: ClassVar[str] = "delivering"
    working: int
    destinations: Mapping[str, Any]


@dataclass(frozen=True)
class FilesRead:
    """The files that a send has taken in so far; the counts, by outcome, add up to those `found`."""

    name: ClassVar[str] = "files"
    found: int
    counts: Mapping[str, int]
    size_bytes: int


@dataclass(frozen=True)
class FilesWritten:
    """The files that an export has written so far, by outcome."""

    name: ClassVar[str] = "files"
    counts: Mapping[str, int]
    instances: int
    size_bytes: int


@dataclass(frozen=True)
class Comparing:
    """The amount that is compared so far, and the differences found."""

    name: ClassVar[str] = "comparing"
    studies: int
    series: int
    instances: int
    contents: int
    different: int


@dataclass(frozen=True)
class ComparisonWaits:
    """A comparison waits; `reason` says for what."""

    name: ClassVar[str] = "waiting"
    reason: str


@dataclass(frozen=True)
class Portions:
    """The days or entries of a migration: `listed` so far, `of` how many."""

    listed: int
    of: int


@dataclass(frozen=True)
class Listing:
    """The studies that a dry run of a migration has listed so far."""

    name: ClassVar[str] = "listing"
    studies: int
    portions: Portions


@dataclass(frozen=True)
class MigrationStarted:
    """The migration stands in the ledger."""

    name: ClassVar[str] = "migration_started"
    job_id: int
    source: str
    detached: bool


@dataclass(frozen=True)
class Migrating:
    """The progress of a migration: studies and instances by name, why it waits, and what could not be listed and why."""

    name: ClassVar[str] = "migrating"
    studies: Mapping[str, int]
    portions: Portions
    at_a_time: int
    waiting: str
    seconds_left: float | None
    problems: Mapping[str, str]


PULL = (JobStarted, StudyPlanned, Progress, Repairing, Waiting, StudyEnded, JobEnded, Delivering, Summary)
SEND = (FilesRead, Delivering, Summary)
SYNC = (Cycle, *PULL)
MIGRATE = (MigrationStarted, Migrating, Listing, Delivering, Summary)
COMPARE = (Comparing, ComparisonWaits, Delivering, Summary)
EXPORT = (FilesWritten, Summary)
