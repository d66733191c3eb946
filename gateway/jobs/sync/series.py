"""The series of a study that a sync takes. Pure.

Filters come first, then the choice: ``smallest`` of the CT series is the smallest CT series. A series without instances is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Series:
    """A series as a source lists it; `count` is the number of its instances."""

    uid: str
    count: int
    modality: str = ""
    description: str = ""


class Take(StrEnum):
    """The choice among the series of a study."""

    ALL = "all"
    """Every one."""

    SMALLEST = "smallest"
    """The one with the fewest instances; of several such ones that whose Series Instance UID sorts first, as text."""

    FEWER_THAN = "fewer_than"
    """Every one with fewer instances than a given number."""


@dataclass(frozen=True)
class Selection:
    """A choice of series.

    `modalities` and `descriptions` are patterns with ``*`` and ``?``, compared without regard to case; a series has to match one
    of each, where any are given. `limit` is the number of instances for `Take.FEWER_THAN`.
    """

    take: Take = Take.ALL
    limit: int = 0
    modalities: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Tell whether every series of every study is taken."""
        return self.take is Take.ALL and not self.modalities and not self.descriptions

    @property
    def compares(self) -> bool:
        """Tell whether the choice depends on how large the other series of the study are."""
        return self.take is Take.SMALLEST

    def candidates(self, series: Iterable[Series]) -> list[Series]:
        """Return the series that the filters let through and that have instances."""
        return [one for one in series if one.count > 0 and self._matches(one)]

    def chosen(self, series: Iterable[Series]) -> dict[str, Series]:
        """Return the series to take, by UID."""
        candidates = self.candidates(series)
        match self.take:
            case Take.ALL:
                taken = candidates
            case Take.SMALLEST:
                taken = sorted(candidates, key=lambda one: (one.count, one.uid))[:1]
            case Take.FEWER_THAN:
                taken = [one for one in candidates if one.count < self.limit]
        return {one.uid: one for one in taken}

    def _matches(self, series: Series) -> bool:
        return _any(self.modalities, series.modality) and _any(self.descriptions, series.description)


ALL = Selection()


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return not patterns or any(_expression(pattern).fullmatch(value.strip()) for pattern in patterns)


def _expression(pattern: str) -> re.Pattern[str]:
    """Translate a pattern; `re` keeps the last few hundred expressions compiled."""
    parts = (".*" if sign == "*" else "." if sign == "?" else re.escape(sign) for sign in re.sub(r"\*+", "*", pattern))
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def counts(series: Mapping[str, Series]) -> dict[str, int]:
    """Return the number of instances of each series."""
    return {uid: one.count for uid, one in series.items()}
