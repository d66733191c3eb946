"""A request for a comparison: the two places, how closely they are compared, and what follows. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from enum import StrEnum

from gateway.core.dates import matching_keys
from gateway.core.errors import UsageError
from gateway.retrieve import check_named, named_keys


class Level(StrEnum):
    """The depth to which two places are compared."""

    STUDY = "study"
    """The studies, and the number of instances of each by its place's own count."""

    SERIES = "series"
    """The series, and the number of instances of each by its place's own count."""

    INSTANCE = "instance"
    """The instances, by SOP Instance UID."""


class Repair(StrEnum):
    """The side that is given what only the other has; what differs is overwritten only in one direction."""

    A_TO_B = "a-to-b"
    B_TO_A = "b-to-a"
    BOTH = "both"


@dataclass(frozen=True)
class CompareRequest:
    """Two places and what of them is compared.

    `a` and `b` are names of sources or destinations, or absolute paths of folders. `first` and `last` are ISO dates, both
    inclusive; `query` maps further C-FIND keys to matching values. `content` compares, of each instance that both have, elements
    and pixels. `ignore` leaves out what is missing in ``a`` or ``b``. `when` names the schedule within whose hours it runs.

    Raises:
        UsageError: what was asked cannot be meant.
    """

    a: str
    b: str
    level: Level = Level.INSTANCE
    first: str = ""
    last: str = ""
    study_uids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    patient_ids: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    content: bool = False
    repair: Repair | None = None
    ignore: str = ""
    when: str | None = None

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise UsageError("both sides are the same place")
        if self.content and self.level is not Level.INSTANCE:
            raise UsageError("--content compares instances: it needs --level instance")
        if self.ignore not in {"", "a", "b"}:
            raise UsageError("--ignore-missing-in: expected A or B")
        try:
            object.__setattr__(self, "query", matching_keys(self.query))
        except ValueError as error:
            raise UsageError(f"expected {error}") from error
        lists = [self.study_uids, self.accession_numbers, self.patient_ids]
        if sum(map(bool, lists)) > 1 or (any(lists) and (self.first or self.last)):
            raise UsageError("name the studies in one way: a range of dates, or a list")
        for text, option in ((self.first, "--from"), (self.last, "--to")):
            _date(text, option)
        if self.first and self.last and self.first > self.last:
            raise UsageError("--from is after --to")
        check_named(self)

    def queries(self) -> Iterator[Mapping[str, str]]:
        """Yield the matching keys of each query at STUDY level: a day at a time where both ends are known."""
        for keys in named_keys(self) or [{"StudyDate": day} if day else {} for day in self._days()]:
            yield {**self.query, **keys}

    def _days(self) -> Iterator[str]:
        first, last = _date(self.first, "--from"), _date(self.last, "--to")
        if first is None or last is None:
            yield f"{_dicom(first)}-{_dicom(last)}" if first or last else ""
            return
        for number in range((last - first).days + 1):
            yield _dicom(first + timedelta(days=number))

    def criteria(self) -> str:
        """Return the request as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def fingerprint(self, towards: str) -> str:
        """Return what identifies the repairs of the same comparison towards one side (64 hexadecimal digits)."""
        return hashlib.sha256(f"compare {towards} {self.criteria()}".encode()).hexdigest()


def _date(text: str, option: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option}: found {text[:20]!r}; expected a date such as 2000-01-31") from error


def _dicom(day: date | None) -> str:
    return f"{day:%Y%m%d}" if day else ""
