"""Getting all that matches from an archive that gives only so many answers, without saying so. Pure but for the asking.

An archive that cuts at N gives N to each query that matches more. So where an answer is large, a wider range of dates is asked for
first: an archive that gives more to that did not cut the answer. Else both halves of its range are asked for: when they bring
something new, the answer was cut at its size, and each half that is as large is halved again. What proves a size proves all below
it, so an archive without such a limit costs a few queries once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Generic, TypeVar

Held = TypeVar("Held")


@dataclass(frozen=True, slots=True)
class Answer(Generic[Held]):
    """What was answered to one query; `cut` says that the archive itself tells of more."""

    found: dict[str, Held]
    cut: bool = False


Ask = Callable[[Mapping[str, str]], Answer[Held]]

SMALLEST_LIMIT = 20
"""No archive gives fewer answers at most than this."""

WIDER_DAYS = (1, 15)
"""By how many days at both ends a range is widened."""

FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)
"""What is halved where no dates are asked for."""


@dataclass
class Limit:
    """What is known of an archive's limit."""

    proved: int = SMALLEST_LIMIT - 1
    """Answers of this size and less are whole."""

    hit: int | None = None
    """At this size answers were cut."""

    tells: bool = False
    """It says itself when it cuts an answer."""

    doubtful: bool = False
    """An answer may have been cut, and its range could not be halved any further."""

    def saw(self, count: int, *, cut: bool) -> None:
        """Take note of an answer of this size: smaller ones were not cut."""
        if cut:
            self.tells = True
            self.cuts_at(count)
        else:
            self.proved = max(self.proved, count - 1)

    def cuts_at(self, count: int) -> None:
        """Take note of an answer of this size that was cut."""
        self.hit = min(count, self.hit or count)

    def doubts(self, count: int) -> bool:
        """Tell whether an answer of this size, of which the archive says nothing, may have been cut."""
        return not self.tells and (count > self.proved if self.hit is None else count >= self.hit)


def everything(ask: Ask[Held], keys: Mapping[str, str], limit: Limit) -> dict[str, Held]:
    """Return all that matches `keys`, as far as halving its range of dates can tell; notes in `limit` what it learned."""
    return _completed(ask, keys, ask(keys), limit)


def _completed(ask: Ask[Held], keys: Mapping[str, str], whole: Answer[Held], limit: Limit) -> dict[str, Held]:
    size = len(whole.found)
    limit.saw(size, cut=whole.cut)
    if not (whole.cut or limit.doubts(size)):
        return whole.found
    if not whole.cut and limit.hit is None and _gives_more(ask, keys, size, limit):
        return whole.found
    answers = [(part, ask(part)) for part in halves(keys)]
    together = {uid: one for _, answer in answers for uid, one in answer.found.items()} | whole.found
    if len(together) > size:
        limit.cuts_at(size)
    for part, answer in answers:
        # As large as the whole: if that was cut, so is this.
        if answer.cut or len(answer.found) >= size or limit.hit is not None:
            together |= _completed(ask, part, answer, limit)
    reached = sum(len(answer.found) for _, answer in answers) >= size
    if not reached or not answers:
        limit.doubtful = True
    elif limit.hit is None and not limit.doubtful:
        limit.proved = max(limit.proved, size)
    return together


def _gives_more(ask: Ask[Held], keys: Mapping[str, str], size: int, limit: Limit) -> bool:
    """Tell whether a wider range of dates has more answers than `size`, so that one of this size was not cut."""
    for part in wider(keys):
        answer = ask(part)
        if answer.cut or len(answer.found) < size:
            return False
        limit.saw(len(answer.found), cut=False)
        if not limit.doubts(size):
            return True
    return False


def wider(keys: Mapping[str, str]) -> list[dict[str, str]]:
    """Return `keys` with wider ranges of dates; nothing where there is none."""
    days = _days(keys.get("StudyDate", ""))
    if days is None or not keys.get("StudyDate") or days[0] <= FIRST or days[1] >= LAST:
        return []
    ranges = ((days[0] - timedelta(days=more), days[1] + timedelta(days=more)) for more in WIDER_DAYS)
    return [{**keys, "StudyDate": _date_range(*each)} for each in ranges]


def halves(keys: Mapping[str, str]) -> list[dict[str, str]]:
    """Return `keys` with each half of their range of dates, or of times within one day; nothing where neither can be halved."""
    days = _days(keys.get("StudyDate", ""))
    if days is None:
        return []
    begin, end = days
    if begin < end:
        middle = begin + (end - begin) // 2
        return [{**keys, "StudyDate": _date_range(*part)} for part in ((begin, middle), (middle + timedelta(days=1), end))]
    seconds = _seconds(keys.get("StudyTime", ""))
    if seconds is None or seconds[0] >= seconds[1]:
        return []
    middle_s = (seconds[0] + seconds[1]) // 2
    parts = ((seconds[0], middle_s), (middle_s + 1, seconds[1]))
    return [{**keys, "StudyTime": f"{_time(first)}-{_time(last)}.999999"} for first, last in parts]


def _days(value: str) -> tuple[date, date] | None:
    begin, dash, end = value.partition("-")
    try:
        first = date.fromisoformat(begin) if begin else FIRST
        last = first if not dash and begin else date.fromisoformat(end) if end else LAST
    except ValueError:
        return None
    return first, last


def _date_range(begin: date, end: date) -> str:
    return f"{begin:%Y%m%d}" if begin == end else f"{begin:%Y%m%d}-{end:%Y%m%d}"


def _seconds(value: str) -> tuple[int, int] | None:
    """Return the range of seconds of a day that `halves` wrote, the whole day where nothing is asked; None for other forms."""
    if not value:
        return 0, 24 * 3600 - 1
    begin, _, end = value.removesuffix(".999999").partition("-")
    if not (len(begin) == len(end) == 6 and (begin + end).isdecimal()):
        return None
    return tuple(int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:]) for text in (begin, end))  # type: ignore[return-value]


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}"
