"""The studies that a sync looks at: from a window and the time of the look to C-FIND keys at STUDY level. Pure.

Dates are matched by the source (PS3.4 §C.2.2.2.5), times of day by us: a date range and a time range in one query are matched
each for itself, unless both sides negotiated otherwise (PS3.4 §C.2.2.2.5.4), so that no window across midnight could be asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, tzinfo

from gateway.core.dates import Days, dicom_range

_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.\d{1,6})?)?)?")
_DATE = re.compile(r"(\d{4})[-.]?(\d{2})[-.]?(\d{2})")


@dataclass(frozen=True)
class StudyWindow:
    """Studies that began within the last `last_s` seconds, or on some `days`, of some `patients` (ids), matching `query`.

    Each condition given narrows the window; none given is every study. `query` maps DICOM keywords to matching values. `zone` is
    where StudyDate and StudyTime are local; None is the machine's time zone.
    """

    last_s: float | None = None
    days: tuple[Days, ...] = ()
    patients: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo | None = None

    def keys(self, now: float) -> tuple[dict[str, str], ...]:
        """Return the keys of each C-FIND at STUDY level that together find the window's studies at `now` (UTC seconds)."""
        dated = [{"StudyDate": dicom_range(first, last)} for first, last in self._spans(now)] or [{}]
        whose = [{"PatientID": patient} for patient in self.patients] or [{}]
        return tuple({**self.query, **patient, **dates} for patient in whose for dates in dated)

    def admits(self, study_date: str, study_time: str, now: float) -> bool:
        """Tell whether a study that a source lists under this date and time is within the window at `now`.

        A value that is missing or cannot be read is no reason to leave a study out.
        """
        if self.last_s is None:
            return True
        latest = latest_moment(study_date, study_time, self.zone)
        return latest is None or latest >= now - self.last_s

    def _spans(self, now: float) -> list[tuple[date, date]]:
        if self.last_s is not None:
            return [(self._day(now - self.last_s), self._day(now))]
        return joined(span.seen_from(self._day(now)) for span in self.days)

    def _day(self, at: float) -> date:
        return datetime.fromtimestamp(at, self.zone).date()


def joined(spans: Iterable[tuple[date, date]]) -> list[tuple[date, date]]:
    """Join spans of days that touch or overlap, in order; one that ends before it begins has no day."""
    result: list[tuple[date, date]] = []
    for first, last in sorted(span for span in spans if span[0] <= span[1]):
        if result and first <= result[-1][1] + timedelta(days=1):
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def latest_moment(study_date: str, study_time: str, zone: tzinfo | None) -> float | None:
    """Return the last moment (UTC seconds) that a date and a time, as precise as they are, may mean; None where there is no date.

    A time that was, on the night that clocks go back, there twice is taken for the later one.
    """
    found = _DATE.fullmatch(study_date.strip())
    try:
        day = date(*(int(part) for part in found.groups())) if found else None
    except ValueError:
        day = None
    if day is None:
        return None
    local = datetime.combine(day, _latest_time(study_time))
    return max(local.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))


def _latest_time(study_time: str) -> time:
    found = _TIME.fullmatch(study_time.strip())
    if found is None:
        return time.max
    hours, minutes, seconds = (None if part is None else int(part) for part in found.groups())
    try:
        return time(hours or 0, 59 if minutes is None else minutes, 59 if seconds is None else min(seconds, 59), 999_999)
    except ValueError:
        return time.max
