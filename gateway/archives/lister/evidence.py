"""The evidence of how many matches an archive gives to a query at most. Pure.

Few archives say that there would have been more matches (Orthanc does, by status FE00); most just stop. So the number of matches
alone has to tell: an archive that once gave more was not cut short by a limit on the number when it gave fewer. Where an archive
counts what it has, its count is compared first (`gateway.archives.lister.below`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol, Self

Level = Literal["STUDY", "SERIES", "IMAGE"]

Match = Mapping[str, str]
"""One match as keyword → value, as the archive writes it."""

UNIQUE: Mapping[Level, str] = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""The unique key of each level (PS3.4 §C.6.2.1)."""

LEAST_CAP = 10
"""Answers of this size and more are suspected as soon as the archive never gave more …"""

AGAIN = 3
"""… smaller ones once the same size came so many times more; but a single match from the first time on."""


@dataclass(frozen=True, slots=True)
class Query:
    """One C-FIND: what is asked for at a level, and which keywords are wanted beside the keys."""

    level: Level
    keys: Mapping[str, str]
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An archive's answer to one query: `count` matches came, of which `matches` are those that do not contradict the keys.

    `cut` says that the archive itself tells of more, or refuses for finding too much; `refused`, that it does not answer such a
    query at all.
    """

    matches: Sequence[Match] = ()
    count: int = 0
    cut: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """All that was found, by the unique key of its level, in the archive's order.

    `counted` is how many the archive counts, None where it does not say. `doubt` says why there may be more than was found, and is
    empty where there is not. `repeated` is how often it listed one once more.
    """

    found: Mapping[str, Match]
    queries: int = 1
    doubt: str = ""
    counted: int | None = None
    repeated: int = 0


class Lister(Protocol):
    """Lists what matches, however many queries that takes: ask for `query`, `feed` the answer, until `query` is None."""

    @property
    def query(self) -> Query | None:
        """The next query to ask; None when all are asked."""

    @property
    def begun(self) -> bool:
        """Tell whether the first query was answered: all others ask for parts of it."""

    @property
    def listing(self) -> Listing:
        """The listing of all that was found so far."""

    def feed(self, answer: Answer) -> None:
        """Take the answer to the last `query`."""


@dataclass
class Evidence:
    """The evidence about an archive's limit at one level, shared by all its queries there.

    `cap` is the number of matches at which it stops, None where none is known. `tells` says that it says so when it stops. `most`
    is the number it ever gave, `again` how many times more it gave just as many; `checked` is the greatest number that was found to
    be all there was.
    """

    cap: int | None = None
    tells: bool = False
    most: int = 0
    checked: int = 0
    again: int = 0

    def note(self, answer: Answer) -> None:
        """Learn from an answer."""
        if answer.count > self.most:
            self.most, self.again = answer.count, 0
        elif answer.count == self.most:
            self.again += 1
        if answer.cut and answer.count:
            self.tells = True
            self.found_cut(answer.count)
        elif self.cap is not None and answer.count > self.cap:
            self.cap = None

    def found_cut(self, matches: int) -> None:
        """Learn that an answer of so many matches was not all there was; one without any was refused, and says nothing of a cap."""
        if matches:
            self.cap = matches if self.cap is None else min(self.cap, matches)

    def found_whole(self, matches: int) -> None:
        """Learn that an answer of so many matches was all there was."""
        self.checked = max(self.checked, matches)

    def whole(self, answer: Answer) -> bool:
        """Tell whether an answer that was noted has not been cut short, as far as its size tells."""
        if answer.cut or answer.refused:
            return False
        if self.tells or answer.count == 0:
            return True
        if self.cap is not None:
            return answer.count < self.cap
        if answer.count < self.most:
            return True
        return 1 < answer.count < LEAST_CAP and self.again < AGAIN

    def likely(self, answer: Answer) -> bool:
        """Tell whether as many matches were all there was an earlier time: a short look will do."""
        return self.cap is None and not answer.cut and LEAST_CAP <= answer.count <= self.checked

    @property
    def cuts(self) -> bool:
        """Tell whether the archive is known to cut its answers short."""
        return self.cap is not None


@dataclass
class Knowledge:
    """The evidence about one archive's limits, level by level."""

    levels: dict[Level, Evidence] = field(default_factory=dict)

    def at(self, level: Level) -> Evidence:
        """Return what is known of a level."""
        return self.levels.setdefault(level, Evidence())

    def text(self) -> str:
        """Return it as `from_text` reads it."""
        return json.dumps({level: asdict(evidence) for level, evidence in sorted(self.levels.items())})

    def lasting(self) -> str:
        """Return what is worth a write to the ledger where it has changed: how often an answer came is not."""
        return json.dumps({level: [one.cap, one.tells, one.most, one.checked] for level, one in sorted(self.levels.items())})

    @classmethod
    def from_text(cls, text: str | None, *, max_results: int | None = None) -> Self:
        """Return what an earlier run learned, and what the configuration says, which counts for more.

        A text of another version of the gateway is as good as none.
        """
        known = cls()
        try:
            for level in UNIQUE:
                known.levels[level] = Evidence(**json.loads(text or "{}").get(level, {}))
        except (ValueError, TypeError, AttributeError):
            known = cls()
        if max_results is not None:
            for level in UNIQUE:
                known.at(level).cap = max_results
        return known


def count_of(match: Match, keyword: str) -> int | None:
    """Return a count that an archive gave, or None where it is no natural number."""
    value = match.get(keyword, "")
    return int(value) if value.isdecimal() and len(value) < 12 else None
