"""Durations and days as people write them: ``12h``, ``yesterday``, ``2024-01-01..2024-01-31``. Pure.

What cannot be read raises ValueError whose text says what is expected, for `gateway.settings` and the command line.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

DURATION = 'a duration such as "90s", "5m", "12h" or "2d"'
DAYS = '"today", "yesterday", a date such as "2024-01-31", or two of them joined by ".."'

TIME_OF_DAY = 'a time of day such as "03:00" or "18:30"'

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_RELATIVE = {"today": 0, "yesterday": -1}
_TIME = re.compile(r"(\d{1,2}):(\d{2})")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def seconds(text: str) -> float:
    """Return the seconds of a duration: a number above 0 with its unit s, m (minutes), h or d.

    Raises:
        ValueError: it is none.

    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(DURATION)
    return int(found[1]) * _UNITS_S[found[2]]


@dataclass(frozen=True)
class Days:
    """A span of days that includes both ends; an end is a date, or an int relative to the day it is looked at from (0: today)."""

    first: date | int
    last: date | int

    def seen_from(self, today: date) -> tuple[date, date]:
        """Return the first and the last day of the span on the day `today`."""
        return _on(self.first, today), _on(self.last, today)


def _on(end: date | int, today: date) -> date:
    return today + timedelta(days=end) if isinstance(end, int) else end


def days(text: str) -> Days:
    """Return the span of days that `text` names.

    Raises:
        ValueError: it names none, or one that ends before it begins.

    """
    first, joined, last = (part.strip() for part in text.partition(".."))
    span = Days(_end(first), _end(last if joined else first))
    if type(span.first) is type(span.last) and span.first > span.last:  # type: ignore[operator]
        raise ValueError(f"{DAYS}, the earlier first")
    return span


def _end(text: str) -> date | int:
    if text in _RELATIVE:
        return _RELATIVE[text]
    found = _DATE.fullmatch(text)
    try:
        return date(*(int(part) for part in found.groups())) if found else _unreadable()
    except ValueError as error:
        raise ValueError(DAYS) from error


def _unreadable() -> date:
    raise ValueError(DAYS)


def time_of_day(text: str) -> time:
    """Return a time of day, to the minute.

    Raises:
        ValueError: it is none.

    """
    found = _TIME.fullmatch(text.strip())
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        raise ValueError(TIME_OF_DAY)
    return time(int(found[1]), int(found[2]))


def next_time(now: datetime, at: time, weekdays: Collection[int], zone: tzinfo) -> datetime:
    """Return the first moment after `now` at which it is `at` in `zone` on one of `weekdays` (0 is Monday), with that zone.

    A time that the clock skips on a day is that much later on it, one that comes twice is its first.
    """
    today = now.astimezone(zone).date()
    moments = (datetime.combine(today + timedelta(days=ahead), at, zone) for ahead in range(9))
    return next(moment for moment in moments if moment > now and moment.weekday() in weekdays)
