"""Durations, days and C-FIND keys as people write them: ``12h``, ``yesterday``, ``StudyDate=2024-01-01..2024-01-31``. Pure.

Text that cannot be read raises ValueError, which says what is expected, for `gateway.config.settings` and the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

DURATION = 'a duration such as "90s", "5m", "12h" or "2d"'
DAYS = '"today", "yesterday", a date such as "2024-01-31", or two of them joined by ".."'

DATE_KEY = 'a date such as "20240115" or "2024-01-15", or a range such as "20240101-20240131" or "2024-01-01..2024-01-31"'
TIME_KEY = 'a time such as "0830" or "08:30:00", or a range such as "0800-1200" or "08:00..12:00"'
DATE_TIME_KEY = 'a date and time such as "20240115083000", or a range of two, joined by "-"'
EARLIER_FIRST = ", the earlier first"

TIME_OF_DAY = 'a time of day such as "03:00" or "18:30"'

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_RELATIVE = {"today": 0, "yesterday": -1}
_TIME = re.compile(r"(\d{1,2}):(\d{2})")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def dicom_range(first: date, last: date) -> str:
    """Return the value that matches dates from `first` to `last` (PS3.4 §C.2.2.2.5)."""
    return f"{first:%Y%m%d}" if first == last else f"{first:%Y%m%d}-{last:%Y%m%d}"


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


def matching_keys(keys: Mapping[str, str]) -> dict[str, str]:
    """Return C-FIND keys with dates and times as PS3.5 §6.2 has them; other keys as they are.

    Raises:
        ValueError: a date or time is none, or a range ends before it begins; the text says for which keyword what is expected.

    """
    plain = dict[str, str]()
    for keyword, value in keys.items():
        try:
            plain[keyword] = matching_value(keyword, value)
        except ValueError as error:
            raise ValueError(f"for {keyword} {error}") from error
    return plain


def matching_value(keyword: str, value: str) -> str:
    """Return the value of one C-FIND key, a date, a time or a range of them as PS3.4 §C.2.2.2.5 has them.

    Raises:
        ValueError: it is none; the text says what is expected, and repeats no value.

    """
    if not keyword.endswith(("Date", "Time")) or not value.strip(" *"):
        return value
    expected, read = {"DA": (DATE_KEY, _date_key), "TM": (TIME_KEY, _time_key), "DT": (DATE_TIME_KEY, _moment_key)}.get(
        _vr_of(keyword), ("", None)
    )
    if read is None:
        return value
    try:
        return "\\".join(read(part.strip()) for part in value.split("\\"))
    except _Reversed:
        raise ValueError(f"{expected}{EARLIER_FIRST}") from None
    except ValueError:
        raise ValueError(expected) from None


def _vr_of(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    return "" if tag is None else dictionary_VR(tag)


class _Reversed(ValueError):
    """A range ends before it begins."""


_KEY_DATE = re.compile(r"(\d{4})([-./]?)(\d{2})\2(\d{2})")
_KEY_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?)?")
_KEY_MOMENT = re.compile(r"\d{4}(\d{2}){0,5}(\.\d{1,6})?([+-]\d{4})?")


def _date_key(text: str) -> str:
    return _range(text, _KEY_DATE, lambda found: f"{date(int(found[1]), int(found[3]), int(found[4])):%Y%m%d}".zfill(8))


def _time_key(text: str) -> str:
    return _range(text, _KEY_TIME, _plain_time)


def _moment_key(text: str) -> str:
    """Return a date and time, or a range, as it is: a ``-`` may also be the offset from UTC."""
    parts = text.split("-")
    whole = any(
        all(not half or _KEY_MOMENT.fullmatch(half) for half in ("-".join(parts[:at]), "-".join(parts[at:])))
        for at in range(len(parts) + 1)
    )
    if not whole:
        raise ValueError(text)
    return text


def _plain_time(found: re.Match[str]) -> str:
    hours, minutes, seconds, fraction = found.groups()
    if int(hours) > 23 or int(minutes or 0) > 59 or int(seconds or 0) > 60:
        raise ValueError(hours)
    return f"{hours}{minutes or ''}{seconds or ''}{fraction or ''}"


def _range(text: str, one: re.Pattern[str], plain: Callable[[re.Match[str]], str]) -> str:
    """Return a value, or two of them joined by ``-`` or ``..``, either of which may be missing, in the form that `plain` gives."""
    if single := one.fullmatch(text):
        return plain(single)
    for joint in ("..", "-"):
        for at in (match.start() for match in re.finditer(re.escape(joint), text)):
            first, last = text[:at].strip(), text[at + len(joint) :].strip()
            begin, end = one.fullmatch(first), one.fullmatch(last)
            if (begin or not first) and (end or not last) and (begin or end):
                ends = plain(begin) if begin else "", plain(end) if end else ""
                if begin and end and ends[0][: len(ends[1])] > ends[1]:
                    raise _Reversed(text)
                return "-".join(ends)
    raise ValueError(text)


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
