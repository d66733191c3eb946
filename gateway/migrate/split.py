"""Listing all studies that match, at a source that cuts long answers short. Pure: it says what to ask next and is fed the answers.

An answer that may have been cut is asked for again in parts, in two ways, and what all of them list is put together:

- by Study Time, halved again and again. A study without a time is in no range at most sources;
- by what the patient id ends with, a character more at a time, or begins with where a source cannot be asked so, or else by the
  patient's name. A study without it is not found so. (The ends of ids differ more than their beginnings: that takes fewer queries.)

Neither way finds everything for certain, so both are gone through. Where both came to their end, only a study could be missing
that has neither a time nor an id; as soon as one of those is seen, and wherever a way did not come to its end, it is said that
there may be more (`Found.doubt`). Only that many studies have the same time raises no doubt, as long as all have ids: every study
should have one, and many devices write one time for all.

Where nothing but the size of an answer raises the suspicion, the days around it are asked for first: a source that gives more then
did not cut the day short. Else, and if neither way brings anything new, one that came to its end is enough; and where so many
matches were all there was before, the two halves of the day are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from gateway.migrate.evidence import Answer, Evidence, Study
from gateway.migrate.parts import Around, Keyword, Like, Part, Times, Way, way_of

MAX_QUERIES = 5000
"""Queries for one day at most: a source that leads further than this is not understood."""

TIMES_SHARE = 0.5
"""How many of them may be queries by time."""

MAX_VAIN = 60
"""Refusals for finding too much, one after the other and without a single match, after which a source is not asked in parts."""

AROUND_DAYS = (1, 15)
"""How many days before and after one are asked for with it: weekends have few studies."""

LIKE: Sequence[Way] = ("id-end", "id-begin", "name-begin")
"""By what studies are asked for beside their times, each where the ones before did not list everything."""

CUTS = "the source cuts its answers short"

Steps = Generator[Part | Around | None, Answer, bool]
"""Parts to be asked for, None for all at once; sent their answers; returns whether all parts were had whole."""


@dataclass(frozen=True, slots=True)
class Found:
    """The studies that were found, in the source's order. `doubt` says why there may be more, and is empty where there are not."""

    studies: tuple[Study, ...]
    queries: int
    doubt: str = ""


class Splitter:
    """Lists what matches `keys`: ask for `query`, `feed` the answer, until there is nothing to ask; then `found` is the result.

    `evidence` is shared by all queries of a source, and learns. Without `splits` what may be cut is said and left at that: for keys
    that ask for a patient or a time themselves.
    """

    def __init__(self, keys: Mapping[str, str], evidence: Evidence, *, splits: bool = True) -> None:
        self.queries = 0
        self.doubt = ""
        self._keys = dict(keys)
        self._evidence = evidence
        self._splits = splits
        self._found: dict[str, Study] = {}
        self._reached: dict[Way, set[str]] = defaultdict(set)
        self._folding: set[Keyword] = set()
        self._vain = 0
        self._steps = self._walk()
        self._asked = next(self._steps)
        self._ended = False

    @property
    def query(self) -> dict[str, str] | None:
        """The matching keys to ask for next; None when all is asked."""
        return None if self._ended else self._keys | dict(self._asked.keys() if self._asked else {})

    @property
    def found(self) -> Found:
        """What was found so far."""
        return Found(tuple(self._found.values()), self.queries, self.doubt)

    def feed(self, answer: Answer) -> None:
        """Take the answer to the last `query`."""
        self.queries += 1
        self._evidence.note(answer)
        self._vain = self._vain + 1 if answer.cut and not answer.matches else 0
        for study in () if isinstance(self._asked, Around) else answer.studies:
            self._found.setdefault(study.study_instance_uid, study)
        try:
            self._asked = self._steps.send(answer)
        except StopIteration:
            self._ended = True

    def _walk(self) -> Steps:
        """Ask for all at once, and where that may have been cut, in parts."""
        whole = yield None
        if self._evidence.whole(whole):
            return True
        if not self._splits:
            self.doubt = _unsplit(whole, self._evidence)
            return False
        first = frozenset(self._found)
        if (yield from self._look_around(whole)):
            return True
        if self._evidence.likely(whole) and (yield from self._short_look(first)):
            return True
        ended = yield from self._ways(whole, first)
        if len(self._found) > len(first):
            self._evidence.found_cut(whole.matches)
        self.doubt = self._judged(whole, ended)
        if not self.doubt and len(self._found) == len(first):
            self._evidence.found_whole(whole.matches)
        return not self.doubt

    def _look_around(self, whole: Answer) -> Steps:
        """Ask for the days around it, too; returns whether that shows that the answer was not cut short."""
        day = _day(self._keys.get("StudyDate", ""))
        if day is None or whole.refused or self._cuts(whole):
            return False
        for days in AROUND_DAYS:
            answer = yield Around(day, days)
            if answer.cut or answer.refused or answer.matches < whole.matches:
                return False
            if self._evidence.whole(whole):
                return True
        return False

    def _ways(self, whole: Answer, first: frozenset[str]) -> Generator[Part | Around | None, Answer, frozenset[Way]]:
        """Go through the ways, as far as there is a need; returns those that came to their end."""
        ended = set[Way]()
        if (yield from self._times(Times())):
            ended.add("time")
            if not self._cuts(whole) and not self._unreached("time") and first == self._found.keys():
                return frozenset(ended)
        for way in LIKE:
            if (yield from self._likes(Like(way))):
                ended.add(way)
                if not self._unreached(way):
                    break
        return frozenset(ended)

    def _unreached(self, *ways: Way) -> bool:
        """Tell whether something was found that none of `ways` lists."""
        return not self._found.keys() <= set[str]().union(*(self._reached[way] for way in ways))

    def _short_look(self, first: frozenset[str]) -> Steps:
        """Ask for the two halves of the day; returns whether they list just what was listed at once."""
        whole = True
        for half in Times().halves():
            answer = yield half
            whole = self._took(half, answer) and self._evidence.whole(answer) and whole
        return whole and self._reached["time"] == first == self._found.keys()

    def _cuts(self, whole: Answer) -> bool:
        """Tell whether more than the size of an answer says that it was cut."""
        return whole.cut or self._evidence.cap is not None

    def _judged(self, whole: Answer, ended: frozenset[Way]) -> str:
        """Return what may be missing, given which ways came to their end."""
        by_all = "time" in ended and any(not self._unreached("time", way) for way in ended - {"time"})
        enough = {"id-end", "id-begin"} if self._cuts(whole) else ended
        by_one = any(not self._unreached(way) for way in ended & enough)
        if by_all or by_one:
            return ""
        if not self._cuts(whole):
            return f"the source gave {whole.matches} matches, more than ever before, and cannot be asked for them in parts"
        if not ended:
            return f"{CUTS}, and not all parts could be listed whole"
        without = "a time" if ended == {"time"} else "a patient id" if "time" not in ended else "a time and a patient id"
        return f"{CUTS}: studies without {without} could not all be listed"

    def _spent(self, share: float = 1.0) -> bool:
        """Tell whether so large a share of the queries of a day is used up, or all of the last were in vain."""
        return self.queries >= MAX_QUERIES * share or self._vain >= MAX_VAIN

    def _took(self, part: Part, answer: Answer) -> bool:
        """Note what a part lists; tells whether the source answers such a query, and by its key."""
        if answer.refused or any(part.contradicted_by(study) for study in answer.studies):
            return False
        self._reached[way_of(part)].update(study.study_instance_uid for study in answer.studies)
        if isinstance(part, Like) and any(part.folded_for(study) for study in answer.studies):
            self._folding.add(part.keyword)
        return True

    def _times(self, times: Times) -> Steps:
        """Ask for the two halves of a range of times, and for theirs where they may have been cut."""
        answers: list[Answer] = []
        for half in times.halves():
            if self._spent(TIMES_SHARE):
                return False
            answers.append((yield half))
            if not self._took(half, answers[-1]):
                return False
        if _same(answers):
            return False
        whole = bool(answers)
        for half, answer in zip(times.halves(), answers, strict=True):
            if not self._evidence.whole(answer):
                whole = (yield from self._times(half)) and whole
        return whole

    def _likes(self, like: Like) -> Steps:
        """Ask for what has a character more there than `like`, and on where that may have been cut."""
        if not any(map(like.value, self._found.values())):
            return False  # the source does not say what it would be asked by
        whole = not like.text or (yield from self._exactly(replace(like, exact=True)))
        asked = set[str]()
        for longer in like.longer(tuple(map(like.value, self._found.values()))):
            if self._spent():
                return False
            if like.keyword in self._folding and longer.text.casefold() in asked:
                continue
            asked.add(longer.text.casefold())
            answer = yield longer
            if not self._took(longer, answer):
                return False
            if not self._evidence.whole(answer):
                whole = (yield from self._likes(longer)) and whole
        return whole and bool(asked)

    def _exactly(self, like: Like) -> Steps:
        """Ask for what is just that; returns whether it was had whole."""
        if self._spent():
            return False
        answer = yield like
        return self._took(like, answer) and self._evidence.whole(answer)


def _unsplit(whole: Answer, evidence: Evidence) -> str:
    if not whole.cut and not whole.refused and evidence.cap is None:
        return ""
    return f"{CUTS}: it gave {whole.matches} matches, and there may be more"


def _day(key: str) -> date | None:
    """Return the day that a matching key names (PS3.5 §6.2, DA); None where it is no single day that has days around it."""
    try:
        day = datetime.strptime(key, "%Y%m%d").date()
    except ValueError:
        return None
    return day if date.min.year < day.year < date.max.year else None


def _same(answers: Sequence[Answer]) -> bool:
    """Tell whether two halves were answered with the same matches, and several: the source does not look at the time."""
    first, second = ({study.study_instance_uid for study in answer.studies} for answer in answers or (Answer(), Answer()))
    return len(first) > 1 and first == second
