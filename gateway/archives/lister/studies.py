"""Listing all studies that match, at an archive that cuts its answers short. Pure: it says what to ask, and is fed the answers.

An answer that may have been cut is asked for again in parts, in two ways, and what all of them list is put together:

- by Study Date and Study Time, halved again and again. A study without them is in no range at most archives;
- by what the patient id ends with, a character more at a time, or begins with where an archive cannot be asked so, or else by the
  patient's name, or the accession number. A study without it is not found so. (The ends of ids differ more than their beginnings:
  that takes fewer queries.)

Neither way finds everything for certain, so both are gone through. Where both came to their end, only a study could be missing
that has neither a time nor an id; as soon as one of those is seen, and wherever a way did not come to its end, it is said that
there may be more (`Listing.doubt`). Only that many studies have the same time raises no doubt, as long as all have ids: every study
should have one, and many devices write one time for all.

Where nothing but the size of an answer raises the suspicion, all studies of the days around it are asked for first: an archive that
gives more then did not cut the answer short. Else, and if neither way brings anything new, one that came to its end is enough; and
where so many matches were all there was before, the two halves are. Where there are only a few matches, what is close around them
is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import date

from gateway.archives.lister.evidence import LEAST_CAP, Answer, Evidence, Listing, Match, Query
from gateway.archives.lister.parts import (
    KEYWORDS,
    Around,
    Days,
    Keyword,
    Like,
    Part,
    Times,
    Way,
    day_of,
    seconds_of,
    span_of,
    way_of,
)

MAX_QUERIES = 5000
"""Queries for one listing at most, and one more for each study found: an archive that leads further than this is not understood."""

TIMES_SHARE = 0.5
"""The share of `MAX_QUERIES` that may be queries by date and time."""

MAX_VAIN = 60
"""Refusals for finding too much, one after the other and without a single match, after which no parts are asked for."""

AROUND_DAYS = (1, 15)
"""The numbers of days before and after a day that are asked for with it: weekends have few studies."""

CLOSELY = 2
"""Up to so many matches are looked around closely; a range with more of them is halved."""

LIKE: Sequence[Way] = ("id-end", "id-begin", "name-begin", "accession-end")
"""The keys that studies are asked for by beside their times, each where the ones before did not list everything."""

WANTED = ("StudyInstanceUID", "StudyDate", "StudyTime", "PatientID", "PatientName", "AccessionNumber")
"""The attributes of each study that must be known to ask for parts."""

CUTS = "the source cuts its answers short"

Steps = Generator[Part | Around | None, Answer, bool]
"""Parts to be asked for, None for all at once; sent their answers; returns whether all parts were had whole."""


class StudyLister:
    """A `Lister` of the studies that match `keys`.

    `evidence` is shared by all queries of an archive at STUDY level, and learns. `wanted` names what is wanted of each study beside
    what parts are made by.
    """

    def __init__(self, keys: Mapping[str, str], evidence: Evidence, wanted: Sequence[str] = ()) -> None:
        self.queries = 0
        self.doubt = ""
        self._keys = {keyword: key for keyword, key in keys.items() if key}
        self._span = span_of(self._keys.get("StudyDate", ""))
        self._wanted = tuple(dict.fromkeys((*WANTED, *wanted, *keys)))
        self._evidence = evidence
        self._found: dict[str, Match] = {}
        self._reached: dict[Way, set[str]] = defaultdict(set)
        self._folding: set[Keyword] = set()
        self._vain = 0
        self._steps = self._walk()
        self._asked = next(self._steps)
        self._ended = False

    @property
    def query(self) -> Query | None:
        """The next query to ask; None when all are asked."""
        if self._ended:
            return None
        if isinstance(self._asked, Around):
            return Query("STUDY", self._asked.keys(), WANTED[:2])
        return Query("STUDY", self._keys | dict(self._asked.keys() if self._asked else {}), self._wanted)

    @property
    def begun(self) -> bool:
        """Tell whether the first query was answered."""
        return self.queries > 0

    @property
    def listing(self) -> Listing:
        """The listing of all that was found so far."""
        return Listing(self._found, self.queries, self.doubt)

    def feed(self, answer: Answer) -> None:
        """Take the answer to the last `query`; a study of other days, which came regardless of the keys, is passed over."""
        self.queries += 1
        self._evidence.note(answer)
        self._vain = self._vain + 1 if answer.cut and not answer.matches else 0
        if not isinstance(self._asked, Around):
            answer = replace(answer, matches=[study for study in answer.matches if self._admits(study)])
            for study in answer.matches:
                self._found.setdefault(study["StudyInstanceUID"], study)
        try:
            self._asked = self._steps.send(answer)
        except StopIteration:
            self._ended = True

    def _admits(self, study: Match) -> bool:
        day = day_of(study.get("StudyDate", ""))
        within = day is None or self._span is None or not self._keys.get("StudyDate") or self._span[0] <= day <= self._span[1]
        return within and bool(study.get("StudyInstanceUID"))

    def _walk(self) -> Steps:
        """Ask for all at once, and where that may have been cut, in parts."""
        whole = yield None
        if self._evidence.whole(whole) or (self._names_one() and not whole.cut):
            return True
        first = frozenset(self._found)
        if (yield from self._look_around(whole)):
            return True
        if not self._cuts(whole) and whole.count < LEAST_CAP:
            yield from self._look_closely(whole)
            if first == self._found.keys():
                return True
        elif self._evidence.likely(whole) and (yield from self._short_look(first)):
            return True
        if len(self._found) > len(first):
            self._evidence.found_cut(whole.count)
        ended = yield from self._ways(whole, first)
        if len(self._found) > len(first):
            self._evidence.found_cut(whole.count)
        self.doubt = self._judged(whole, ended)
        if not self.doubt and len(self._found) == len(first):
            self._evidence.found_whole(whole.count)
        return not self.doubt

    def _names_one(self) -> bool:
        uid = self._keys.get("StudyInstanceUID", "")
        return bool(uid) and not any(mark in uid for mark in "*?\\")

    def _look_around(self, whole: Answer) -> Steps:
        """Ask for all of the days around it, too; returns whether that shows that the answer was not cut short."""
        span = self._span if self._keys.get("StudyDate") else _seen(whole.matches)
        if span is None or self._cuts(whole) or not whole.count:
            return False
        for days in AROUND_DAYS:
            answer = yield Around(*span, days)
            if answer.cut or answer.refused or answer.count < whole.count:
                return False
            if self._evidence.whole(whole) or answer.count > whole.count:
                return True
        return False

    def _look_closely(self, whole: Answer) -> Steps:
        """Ask for what lies close around the few studies that were found; returns whether nothing else does."""
        if self._span is None or not self._found:
            return False
        before = len(self._found)
        for part in self._cut(Days(*self._span), whole.matches):
            for piece in self._cut(part, whole.matches) if isinstance(part, Days) and _holds(part, whole.matches) else (part,):
                answer = yield piece
                if not self._took(piece, answer):
                    return False
        return len(self._found) == before

    def _ways(self, whole: Answer, first: frozenset[str]) -> Generator[Part | Around | None, Answer, frozenset[Way]]:
        """Go through the ways, as far as there is a need; returns those that came to their end."""
        ended = set[Way]()
        if self._span is not None and (yield from self._narrowed(Days(*self._span), whole)):
            ended.add("time")
            if not self._cuts(whole) and not self._unreached("time") and first == self._found.keys():
                return frozenset(ended)
        for way in LIKE:
            if self._keys.get(KEYWORDS[way]) or (self._evidence.cap or LEAST_CAP) <= CLOSELY:
                continue
            if (yield from self._likes(Like(way))):
                ended.add(way)
                if not self._unreached(way):
                    break
        return frozenset(ended)

    def _unreached(self, *ways: Way) -> bool:
        """Tell whether something was found that none of `ways` lists."""
        return not self._found.keys() <= set[str]().union(*(self._reached[way] for way in ways))

    def _short_look(self, first: frozenset[str]) -> Steps:
        """Ask for the two halves; returns whether they list just what was listed at once."""
        whole = self._span is not None
        for half in self._cut(Days(*self._span), ()) if self._span is not None else ():
            answer = yield half
            whole = self._took(half, answer) and self._evidence.whole(answer) and whole
        return whole and self._reached["time"] == first == self._found.keys()

    def _cuts(self, whole: Answer) -> bool:
        """Tell whether more than the size of an answer says that it was cut."""
        return whole.cut or self._evidence.cuts

    def _judged(self, whole: Answer, ended: frozenset[Way]) -> str:
        """Return what may be missing, given which ways came to their end."""
        by_all = "time" in ended and any(not self._unreached("time", way) for way in ended - {"time"})
        enough = {"id-end", "id-begin"} if self._cuts(whole) else ended
        by_one = any(not self._unreached(way) for way in ended & enough)
        if by_all or by_one:
            return ""
        if not self._cuts(whole):
            return f"the source gave {whole.count} matches, more than ever before, and cannot be asked for them in parts"
        if not ended:
            return f"{CUTS}, and not all parts could be listed whole"
        without = "a time" if ended == {"time"} else "a patient id" if "time" not in ended else "a time and a patient id"
        return f"{CUTS}: studies without {without} could not all be listed"

    def _spent(self, share: float = 1.0) -> bool:
        """Tell whether so large a share of the queries is used up, or all of the last were in vain."""
        return self.queries >= (MAX_QUERIES + len(self._found)) * share or self._vain >= MAX_VAIN

    def _took(self, part: Part, answer: Answer) -> bool:
        """Note what a part lists; tells whether the archive answers such a query, and by its key."""
        if answer.refused or any(part.contradicted_by(study) for study in answer.matches):
            return False
        self._reached[way_of(part)].update(study["StudyInstanceUID"] for study in answer.matches)
        if isinstance(part, Like) and any(part.folded_for(study) for study in answer.matches):
            self._folding.add(part.keyword)
        return True

    def _cut(self, part: Days | Times, seen: Sequence[Match]) -> tuple[Days | Times, ...]:
        """Return the parts of a part: of days, then of times of one day, unless the keys ask for times themselves."""
        few = seen if len(seen) <= CLOSELY else ()
        if isinstance(part, Days) and part.first == part.last:
            if self._keys.get("StudyTime"):
                return ()
            part = Times(day=part.first)
        if isinstance(part, Days):
            return part.cut_at([day for study in few if (day := day_of(study.get("StudyDate", ""))) is not None])
        return part.cut_at([at for study in few if (at := seconds_of(study.get("StudyTime", ""))) is not None])

    def _narrowed(self, part: Days | Times, whole: Answer) -> Steps:
        """Ask for the parts of a range, and for theirs where they may have been cut."""
        parts, answers = self._cut(part, whole.matches), list[Answer]()
        for one in parts:
            if self._spent(TIMES_SHARE):
                return False
            answers.append((yield one))
            if not self._took(one, answers[-1]):
                return False
        if len(answers) == 2 and _same(answers):
            return False
        ended = bool(answers)
        for one, answer in zip(parts, answers, strict=True):
            if not self._evidence.whole(answer):
                ended = (yield from self._narrowed(one, answer)) and ended
        return ended

    def _likes(self, like: Like) -> Steps:
        """Ask for what has a character more there than `like`, and on where that may have been cut."""
        if not any(map(like.value, self._found.values())):
            return False  # the archive does not say what it would be asked by
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


def _seen(studies: Sequence[Match]) -> tuple[date, date] | None:
    """Return the day of a study where all that were found are of it."""
    days = {day_of(study.get("StudyDate", "")) for study in studies}
    day = days.pop() if len(days) == 1 else None
    return None if day is None or not date.min.year < day.year < date.max.year else (day, day)


def _holds(part: Days, studies: Sequence[Match]) -> bool:
    return any(not part.contradicted_by(study) for study in studies)


def _same(answers: Sequence[Answer]) -> bool:
    """Tell whether two halves were answered with the same matches, and several: the archive does not look at the time."""
    first, second = ({study["StudyInstanceUID"] for study in answer.matches} for answer in answers)
    return len(first) > 1 and first == second
