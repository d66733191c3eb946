"""Parts of a query: a range of times of the day, or what an id or a name ends or begins with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from gateway.migrate.evidence import Study

DAY_S = 24 * 60 * 60
"""Seconds of a day; also the end of a range that has none."""

MAX_AFFIX = 64
"""Characters of an id or name (PS3.5 §6.2, LO and a component group of PN)."""

TOLERANCE_S = 60
"""By how much a study may miss a range of times without showing that the source does not look at it: it may round."""

Keyword = Literal["PatientID", "PatientName"]

Way = Literal["time", "id-end", "id-begin", "name-begin"]
"""By what a query is asked in parts."""

CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "*?\\%_")
"""What ids and names are taken to be made of, beside spaces within: ASCII but for wild cards and backslash (PS3.4 §C.2.2.2.4)."""

SQL_WILD = "%_"
"""Asked for only where they were seen: the data base behind many a source takes them for wild cards, and then finds too much."""


@dataclass(frozen=True, slots=True)
class Times:
    """The studies from the second `start` of the day to the second `end`, both included; one that has no time is in none."""

    start: int = 0
    end: int = DAY_S

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, range matching (PS3.4 §C.2.2.2.5)."""
        return {"StudyTime": f"{_clock(self.start) if self.start else ''}-{_clock(self.end) if self.end < DAY_S else ''}"}

    def halves(self) -> tuple[Times, ...]:
        """Return the two halves; nothing for what is too short.

        Both have the second in the middle: to which a fraction of it belongs is up to the source. It is no full minute where that
        can be helped, for those are given to studies of which nobody noted the time.
        """
        middle = (self.start + self.end) // 2
        if self.end - self.start > 4 * 60:
            middle = middle // 60 * 60 + 31
        return () if self.end - self.start < 2 else (Times(self.start, middle), Times(middle, self.end))

    def contradicted_by(self, study: Study) -> bool:
        """Tell whether `study` is plainly not in it."""
        at = seconds_of(study.time)
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
        return "PatientName" if self.way == "name-begin" else "PatientID"

    def value(self, study: Study) -> str:
        """Return what `study` has there."""
        return study.patient_id if self.keyword == "PatientID" else study.patient_name

    def contradicted_by(self, study: Study) -> bool:
        """Tell whether `study` is plainly not among them, whatever the case of letters."""
        return not self._fits(self.value(study).casefold(), self.text.casefold())

    def folded_for(self, study: Study) -> bool:
        """Tell whether `study` is among them only where the case of letters does not matter."""
        return not self.contradicted_by(study) and not self._fits(self.value(study))

    @property
    def _by_end(self) -> bool:
        return self.way == "id-end"

    def _fits(self, value: str, text: str | None = None) -> bool:
        text = self.text if text is None else text
        return value.endswith(text) if self._by_end else value.startswith(text)


@dataclass(frozen=True, slots=True)
class Around:
    """The studies of `day` and of so many `days` before and after it: more than is wanted, to see that more comes."""

    day: date
    days: int

    def keys(self) -> Mapping[str, str]:
        """Return the matching keys, range matching (PS3.4 §C.2.2.2.5)."""
        far = timedelta(days=self.days)
        return {"StudyDate": f"{self.day - far:%Y%m%d}-{self.day + far:%Y%m%d}"}


Part = Times | Like


def way_of(part: Part) -> Way:
    """Return to which way a part belongs."""
    return "time" if isinstance(part, Times) else part.way


def _clock(at: int) -> str:
    return f"{at // 3600:02d}{at // 60 % 60:02d}{at % 60:02d}"


def seconds_of(time: str) -> int | None:
    """Return the seconds since midnight of a DICOM time (PS3.5 §6.2, TM; also with colons), None where it is none."""
    digits = time.replace(":", "").split(".")[0]
    if not (digits.isascii() and digits.isdigit()) or len(digits) not in {2, 4, 6}:
        return None
    hours, minutes, seconds = (int(digits[at : at + 2] or 0) for at in (0, 2, 4))
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None
