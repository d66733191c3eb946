"""Weekly hours in a time zone: when something may run. Pure; every instant is an aware datetime.

Hours are those of the wall clock in that zone. A day of 23 or 25 hours is nothing special then: what the clock skips is missing,
what it repeats counts both times, and what begins or ends within a jump does so at the jump.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""In the order of `datetime.weekday`."""

HOURS_EXPECTED = 'hours such as "19-6", "18:30-24" or "0-6, 19-24"'
DAYS_EXPECTED = 'a day or a range of days such as "saturday" or "monday-friday"'

DAY_MINUTES = 24 * 60
WEEK_MINUTES = len(DAYS) * DAY_MINUTES

_SPAN = re.compile(r"\s*(\d{1,2})(?::([0-5]\d))?\s*-\s*(\d{1,2})(?::([0-5]\d))?\s*", re.ASCII)
_WEEK = timedelta(minutes=WEEK_MINUTES)

_STEP = timedelta(hours=6)
"""No zone's clock jumps twice within this."""

_HORIZON = timedelta(days=16)
"""Two weeks and a bit: a zone that crosses the date line skips a day of the week once."""


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a day, in minutes of its wall clock: from `start` (0 to 1439) to before `end`, which may lie on the next day."""

    start: int
    end: int


def parse_hours(text: str) -> tuple[Span, ...]:
    """Return the spans that `text` lists, such as ``0-6, 18:30-24``.

    An end before its start is on the next day; ends of 0 and 24 are midnight.

    Raises:
        ValueError: it is no such list; the message says what was expected.
    """
    return tuple(_span(part) for part in text.split(","))


def _span(text: str) -> Span:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(HOURS_EXPECTED)
    start, end = (int(hour) * 60 + int(minute or 0) for hour, minute in (found.group(1, 2), found.group(3, 4)))
    end = end or DAY_MINUTES
    if start >= DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError(f"{HOURS_EXPECTED}: from 0 to 23:59, until 24 at most")
    if start == end:
        raise ValueError(f'{HOURS_EXPECTED}; the whole day is "0-24"')
    return Span(start, end if end > start else end + DAY_MINUTES)


def parse_days(text: str) -> tuple[int, ...]:
    """Return the days (0 is Monday) that ``friday`` or ``monday-friday`` means.

    A range has its last day in it and may go over Sunday.

    Raises:
        ValueError: it is neither; the message says what was expected.
    """
    first, _, last = text.partition("-")
    if first not in DAYS or (last or first) not in DAYS or text.endswith("-"):
        raise ValueError(DAYS_EXPECTED)
    begin = DAYS.index(first)
    count = (DAYS.index(last or first) - begin) % len(DAYS) + 1
    return tuple((begin + number) % len(DAYS) for number in range(count))


def parse_zone(name: str) -> ZoneInfo:
    """Return the IANA time zone called `name`.

    Raises:
        ValueError: there is none; the message says what was expected.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError('an IANA time zone such as "Europe/Berlin" or "UTC"') from error


@dataclass(frozen=True, slots=True)
class Schedule:
    """The hours of a week in which something may run.

    `edges` are the minutes of the week, from Monday 0:00, at which it opens, closes, opens … in ascending order, none twice.
    """

    zone: ZoneInfo
    edges: tuple[int, ...]

    @classmethod
    def weekly(cls, zone: ZoneInfo, hours: Iterable[tuple[int, Span]]) -> Self:
        """Return the schedule that is open whenever one of `hours`, pairs of a day (0 is Monday) and a span of it, says so."""
        return cls(zone, tuple(_edges(hours)))

    def is_open(self, at: datetime) -> bool:
        """Tell whether `at` is within the hours."""
        wall = at.astimezone(self.zone)
        minute = (wall.weekday() * 24 + wall.hour) * 60 + wall.minute
        return bisect_right(self.edges, minute) % 2 == 1

    def next_change(self, at: datetime) -> datetime | None:
        """Return the first moment after `at` at which it opens or closes, in UTC; None where it never does."""
        if self.edges in ((), (0, WEEK_MINUTES)):
            return None
        now = self.is_open(at)
        return next((moment for moment in self._moments(at) if moment > at and self.is_open(moment) is not now), None)

    def _moments(self, at: datetime) -> Iterator[datetime]:
        """Yield in their order the moments from `at` on at which it may open or close."""
        begin = at.astimezone(UTC).replace(microsecond=0)
        for number in range(_HORIZON // _STEP):
            start, end = begin + number * _STEP, begin + (number + 1) * _STEP
            if self._offset(start) == self._offset(end):
                yield from self._edges_within(start, end)
            else:
                jump = self._jump(start, end)
                yield from self._edges_within(start, jump)
                yield jump
                yield from self._edges_within(jump, end)

    def _edges_within(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the edges after `start` up to `end`, between which the clock does not jump."""
        offset = self._offset(start)
        first, last = (moment.replace(tzinfo=None) + offset for moment in (start, end))
        monday = datetime.combine(first.date() - timedelta(days=first.weekday()), time())
        for week in (monday, monday + _WEEK):
            for edge in self.edges:
                wall = week + timedelta(minutes=edge)
                if first < wall <= last:
                    yield (wall - offset).replace(tzinfo=UTC)

    def _jump(self, start: datetime, end: datetime) -> datetime:
        """Return the second in which the zone's offset changes between `start` and `end`."""
        before, low, high = self._offset(start), 0, int((end - start).total_seconds())
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(start + timedelta(seconds=middle)) == before:
                low = middle
            else:
                high = middle
        return start + timedelta(seconds=high)

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self.zone).utcoffset() or timedelta()


def _edges(hours: Iterable[tuple[int, Span]]) -> Iterator[int]:
    """Yield where the union of `hours` begins and ends, in minutes of the week."""
    begun, ends = -1, -1
    for start, end in sorted(piece for day, span in hours for piece in _pieces(day, span)):
        if start > ends:
            if ends > begun:
                yield from (begun, ends)
            begun = start
        ends = max(ends, end)
    if ends > begun:
        yield from (begun, ends)


def _pieces(day: int, span: Span) -> Iterator[tuple[int, int]]:
    """Yield `span` of `day` in minutes of the week, in two where it goes over the end of Sunday."""
    start, end = day * DAY_MINUTES + span.start, day * DAY_MINUTES + span.end
    yield start, min(end, WEEK_MINUTES)
    if end > WEEK_MINUTES:
        yield 0, end - WEEK_MINUTES
