"""Parts of a query at STUDY level: some days, some times of a day, or what an id or a name ends or begins with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Literal

from gateway.archives.lister.evidence import Match
from gateway.core.dates import dicom_range

DAY_S = 24 * 60 * 60
"""Seconds of a day; also the end of a range that has none."""

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
"""The days that are asked for where no dates are."""

MAX_AFFIX = 64
"""Characters of an id or name (PS3.5 §6.2, LO and a component group of PN)."""

TOLERANCE_S = 60
"""By how much a study may miss a range of times without showing that the archive does not look at it: it may round."""

Keyword = Literal["PatientID", "PatientName", "AccessionNumber"]

Way = Literal["time", "id-end", "id-begin", "name-begin", "accession-end"]
"""The ways to ask a query in parts."""

KEYWORDS: Mapping[Way, Keyword] = {
    "id-end": "PatientID",
    "id-begin": "PatientID",
    "name-begin": "PatientName",
    "accession-end": "AccessionNumber",
}
"""The key of each way but time."""

CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "*?\\%_")
"""The characters assumed in ids and names, beside spaces within: ASCII but for wild cards and backslash (PS3.4 §C.2.2.2.4)."""

SQL_WILD = "%_"
"""Asked for only where they were seen: the data base behind many an archive takes them for wild cards, and then finds too much."""


@dataclass(frozen=True, slots=True)
class Days:
    """The studies from the day `first` to the day `last`, both included; one that has no date is in none."""

    first: date = FIRST
    last: date = LAST

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, range matching (PS3.4 §C.2.2.2.5)."""
        return {"StudyDate": dicom_range(self.first, self.last)}

    def cut_at(self, seen: Sequence[date]) -> tuple[Days, ...]:
        """Return its parts: around the only day that was seen in it, else its two halves; nothing for a single day."""
        if self.first == self.last:
            return ()
        if len(set(seen)) == 1 and self.first <= seen[0] <= self.last:
            day, one = seen[0], timedelta(days=1)
            parts = (self.first, day - one), (day, day), (day + one, self.last)
            return tuple(Days(*part) for part in parts if part[0] <= part[1])
        middle = self.first + (self.last - self.first) // 2
        return (Days(self.first, middle), Days(middle + timedelta(days=1), self.last))

    def contradicted_by(self, study: Match) -> bool:
        """Tell whether `study` is plainly not in it."""
        day = day_of(study.get("StudyDate", ""))
        return day is not None and not self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Times:
    """The studies from the second `start` of the day to the second `end`, both included; one that has no time is in none.

    `day` is the day where it is a part of more days than one.
    """

    start: int = 0
    end: int = DAY_S
    day: date | None = None

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, range matching (PS3.4 §C.2.2.2.5)."""
        times = {"StudyTime": f"{_clock(self.start) if self.start else ''}-{_clock(self.end) if self.end < DAY_S else ''}"}
        return times if self.day is None else {"StudyDate": f"{self.day:%Y%m%d}", **times}

    def halves(self) -> tuple[Times, ...]:
        """Return the two halves; nothing for what is too short.

        Both have the second in the middle: to which a fraction of it belongs is up to the archive. It is no full minute where that
        can be helped, for those are given to studies of which nobody noted the time.
        """
        middle = (self.start + self.end) // 2
        if self.end - self.start > 4 * 60:
            middle = middle // 60 * 60 + 31
        return () if self.end - self.start < 2 else (Times(self.start, middle, self.day), Times(middle, self.end, self.day))

    def cut_at(self, seen: Sequence[int]) -> tuple[Times, ...]:
        """Return its parts: close around the only second that was seen in it, else its halves; nothing for what is too short."""
        at = seen[0] if len(set(seen)) == 1 else -1
        if self.end - self.start < 2 or not self.start <= at <= self.end:
            return self.halves()
        edges = sorted({edge for edge in (self.start, at - 1, at, at + 1, self.end) if self.start <= edge <= self.end})
        return tuple(Times(first, last, self.day) for first, last in pairwise(edges))

    def contradicted_by(self, study: Match) -> bool:
        """Tell whether `study` is plainly not in it."""
        at, day = seconds_of(study.get("StudyTime", "")), day_of(study.get("StudyDate", ""))
        if self.day is not None and day is not None and day != self.day:
            return True
        return at is not None and not self.start - TOLERANCE_S <= at <= self.end + TOLERANCE_S


@dataclass(frozen=True, slots=True)
class Like:
    """The studies whose id or name ends or begins with `text`, as `way` says, or with `exact` is just that."""

    way: Way
    text: str = ""
    exact: bool = False

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, wild card matching (PS3.4 §C.2.2.2.4)."""
        if self.exact:
            return {self.keyword: self.text}
        return {self.keyword: f"*{self.text}" if self._by_end else f"{self.text}*"}

    def longer(self, seen: Iterable[str]) -> Iterator[Like]:
        """Yield those that are a character longer, what the values `seen` have there first."""
        usable = CHARACTERS + " " if self.text else CHARACTERS
        if self.keyword == "PatientName":
            usable = usable.replace("=", "")  # it separates the groups of a name
        at = len(self.text)
        there = (value[-1 - at] if self._by_end else value[at] for value in seen if len(value) > at and self._fits(value))
        first = [character for character in dict.fromkeys(there) if character in usable + SQL_WILD]
        for character in dict.fromkeys((*first, *usable)) if at < MAX_AFFIX else ():
            yield Like(self.way, character + self.text if self._by_end else self.text + character)

    @property
    def keyword(self) -> Keyword:
        """The key that it asks by."""
        return KEYWORDS[self.way]

    def value(self, study: Match) -> str:
        """Return what `study` has there."""
        return study.get(self.keyword, "")

    def contradicted_by(self, study: Match) -> bool:
        """Tell whether `study` is plainly not among them, whatever the case of letters."""
        return not self._fits(self.value(study).casefold(), self.text.casefold())

    def folded_for(self, study: Match) -> bool:
        """Tell whether `study` is among them only where the case of letters does not matter."""
        return not self.contradicted_by(study) and not self._fits(self.value(study))

    @property
    def _by_end(self) -> bool:
        return self.way.endswith("-end")

    def _fits(self, value: str, text: str | None = None) -> bool:
        text = self.text if text is None else text
        return value.endswith(text) if self._by_end else value.startswith(text)


@dataclass(frozen=True, slots=True)
class Around:
    """All studies from `first` to `last`, and of so many `days` before and after: more than is wanted, to see that more comes."""

    first: date
    last: date
    days: int

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, range matching (PS3.4 §C.2.2.2.5)."""
        far = timedelta(days=self.days)
        return {"StudyDate": dicom_range(self.first - far, self.last + far)}


Part = Days | Times | Like


def way_of(part: Part) -> Way:
    """Return to which way a part belongs."""
    return part.way if isinstance(part, Like) else "time"


def span_of(key: str) -> tuple[date, date] | None:
    """Return the first and last day that a matching key names (PS3.4 §C.2.2.2.5); None where it is neither day nor range.

    The first and last years of the calendar have no days around them, and count as none.
    """
    first, dash, last = key.partition("-")
    if not key:
        return FIRST, LAST
    begin = day_of(first) if first else FIRST
    end = (day_of(last) if last else LAST) if dash else begin
    if begin is None or end is None or not date.min.year < begin.year <= end.year < date.max.year or begin > end:
        return None
    return begin, end


def day_of(text: str) -> date | None:
    """Return the day of a DICOM date (PS3.5 §6.2, DA; also as ACR-NEMA and people write it), None where it is none."""
    digits = text.replace(".", "").replace("-", "")
    if not (len(digits) == 8 and digits.isascii() and digits.isdigit()):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def seconds_of(time: str) -> int | None:
    """Return the seconds since midnight of a DICOM time (PS3.5 §6.2, TM; also with colons), None where it is none."""
    digits = time.replace(":", "").split(".")[0]
    if not (digits.isascii() and digits.isdigit()) or len(digits) not in {2, 4, 6}:
        return None
    hours, minutes, seconds = (int(digits[at : at + 2] or 0) for at in (0, 2, 4))
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None


def _clock(at: int) -> str:
    return f"{at // 3600:02d}{at // 60 % 60:02d}{at % 60:02d}"
