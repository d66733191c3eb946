"""The request of a pull, and the events and verdicts that it tells, as plain data. Pure.

Each event has a `name`, under which it crosses the control API (`gateway.control.wire`). Only the `asked` field of a verdict may
hold what identifies a patient (an accession number, a patient id); it is shown to the one who asked and never logged or recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gateway.core.domain import Basis, Priority, VerdictKind
from gateway.core.errors import UsageError
from gateway.retrieve.request import JobSpec, check_named, named_keys


@dataclass(frozen=True)
class PullRequest:
    """The studies to retrieve from a source; exactly one of the four ways to name studies is given.

    `source` is a name of ``[sources]``. `query` maps DICOM keywords to C-FIND matching values (PS3.4 §C.2.2.2). Instances go
    to `destinations`, where some are named, else where the routes lead.

    Raises:
        UsageError: none or several ways were given, a value is empty, or a study UID is no UID.

    """

    source: str
    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    skip_existing: bool = False
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL

    def __post_init__(self) -> None:
        ways = [self.study_uids, self.accession_numbers, self.patient_ids, self.query]
        if sum(bool(way) for way in ways) != 1:
            raise UsageError("name the studies in one way: study UIDs, accession numbers, patient ids or query keys")
        check_named(self)
        if self.query and not any(value.strip("* ") for value in self.query.values()):
            raise UsageError("the query matches every study of the source: give at least one key a value")

    def keys(self) -> tuple[Mapping[str, str], ...]:
        """Return the matching keys of each C-FIND at STUDY level that finds the asked studies, without repetition."""
        return named_keys(self) or (dict(self.query),)

    def criteria(self) -> str:
        """Return the request as canonical JSON: the same for the same command, whatever the order of its values."""
        keys = sorted(json.dumps(dict(key), sort_keys=True) for key in self.keys())
        document: dict[str, Any] = {"source": self.source, "keys": keys, "skip_existing": self.skip_existing}
        if self.destinations:
            document["destinations"] = sorted(self.destinations)
        return json.dumps(document)

    def fingerprint(self) -> str:
        """Return what identifies the same command given again (64 hexadecimal digits)."""
        return hashlib.sha256(f"pull {self.criteria()}".encode()).hexdigest()

    def spec(self) -> JobSpec:
        """Return what the job is done for."""
        return JobSpec("pull", self.fingerprint(), self.criteria(), self.destinations, self.priority)


@dataclass(frozen=True)
class Verdict:
    """The verdict on the retrieval of one study (promise 2: never by a status or a timer alone).

    `expected` is None where the source told neither UIDs nor counts. `received` counts distinct expected instances that are
    durable here, `skipped` those not asked for because the destinations hold them. `missing` lists UIDs; with basis counts,
    it lists only those the source named. `unfit` has the reason for each instance that came and is not what the source lists.
    """

    kind: VerdictKind
    study_instance_uid: str
    basis: Basis
    expected: int | None
    received: int
    skipped: int = 0
    missing: tuple[str, ...] = ()
    note: str = ""
    seconds: float = 0.0
    bytes: int = 0
    asked: str = ""
    retrieval_id: int | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStarted:
    """The source answered C-ECHO and the job stands in the ledger."""

    name: ClassVar[str] = "job_started"
    job_id: int
    source: str
    resumed: bool


@dataclass(frozen=True)
class StudyPlanned:
    """The source's list of a study; `present` of the expected instances came in an earlier run of the same job."""

    name: ClassVar[str] = "study_planned"
    study_instance_uid: str
    retrieval_id: int
    basis: Basis
    expected: int | None
    skipped: int
    present: int


@dataclass(frozen=True)
class Progress:
    """Instances and bytes of a study so far; told at most a few times a second."""

    name: ClassVar[str] = "progress"
    study_instance_uid: str
    retrieval_id: int
    expected: int | None
    received: int
    bytes: int


@dataclass(frozen=True)
class Repairing:
    """Instances are missing after the arrivals went quiet.

    `step` says what is tried next: image, series, other-order and the like, growth, get or move. `after` says how the
    operation before ended: answered, busy, stalled or broken.
    """

    name: ClassVar[str] = "repairing"
    study_instance_uid: str
    retrieval_id: int
    step: str
    round: int
    missing: int
    after: str = "answered"


@dataclass(frozen=True)
class Waiting:
    """Nothing moves for `seconds` because of `reason` (busy: the source refused for now; unreachable; room: the spool is full)."""

    name: ClassVar[str] = "waiting"
    study_instance_uid: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class StudyEnded:
    """A study has its verdict; `earlier` when the same job had come to it in an earlier run."""

    name: ClassVar[str] = "study_ended"
    verdict: Verdict
    earlier: bool = False


@dataclass(frozen=True)
class JobEnded:
    """The last event: how many studies ended how, and why the job as a whole failed where it did."""

    name: ClassVar[str] = "job_ended"
    job_id: int | None
    complete: int = 0
    incomplete: int = 0
    empty: int = 0
    failed: int = 0
    error: str = ""

    @property
    def all_complete(self) -> bool:
        """Tell whether everything that was asked for is here (exit code 0)."""
        return not (self.incomplete or self.empty or self.failed or self.error)


Event = JobStarted | StudyPlanned | Progress | Repairing | Waiting | StudyEnded | JobEnded
