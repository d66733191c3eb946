"""Narrower queries below STUDY level, at an archive that cuts its answers short. Pure.

Here an archive often counts what it has, so its count is compared first: where it lists as many, nothing else is asked. Where it
lists fewer, says that it has cut, or gives a suspicious number of matches and counts nothing, it is asked further, in each way
until the count is met:

- by what the UIDs begin with. UIDs take no wild cards (PS3.4 §C.2.2.2.1), but some archives match them;
- by ranges of Series Number or Instance Number, halved. Numbers take none (PS3.4 §C.2.2.2.5), but some archives match them;
- number by number, which every archive should answer: both are required keys (PS3.4 §C.6.2.1.4, §C.6.2.1.5).

A listing that stays short of the count says so: the verdict on such a study is never that it is whole.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from itertools import count as upward

from gateway.archives.lister.evidence import LEAST_CAP, UNIQUE, Answer, Evidence, Level, Listing, Match, Query
from gateway.core.domain import is_uid

MAX_QUERIES = 2000
"""Queries for one listing at most, and two more for each that was found."""

MAX_VAIN = 40
"""Refusals for finding too much, one after the other, after which nothing more is asked."""

VAIN = 30
"""Numbers in a row under which nothing new is found, after which no more are tried."""

SAMPLE = 8
"""Numbers that are known already and are asked for all the same: several instances may have one."""

AT_A_TIME = 50
"""UIDs in one query (list of UID matching, PS3.4 §C.2.2.2.2): 3.3 KB at most."""

_NUMBER: Mapping[Level, str] = {"SERIES": "SeriesNumber", "IMAGE": "InstanceNumber"}
_DIGITS = "0123456789."
_LARGEST = 2_147_483_647

Steps = Generator[Query, Answer, bool]
"""Queries to be asked; sent their answers; returns whether the way came to its end: it found whatever can be found by it."""


class NarrowingLister:
    """A `Lister` below STUDY level: counts first, then narrower queries until the count is met."""

    level: Level

    def __init__(
        self,
        keys: Mapping[str, str],
        evidence: Evidence,
        wanted: Sequence[str],
        named: Collection[str],
        known: Collection[str] = (),
    ) -> None:
        self.queries = 0
        self.doubt = ""
        self._keys = dict(keys)
        self._unique = UNIQUE[self.level]
        self._evidence = evidence
        self._wanted = tuple(dict.fromkeys((self._unique, *wanted)))
        self._named = tuple(dict.fromkeys((*known, *named)))
        self._known = frozenset(known)
        self._found: dict[str, Match] = {}
        self._numbers: dict[str, int] = {}
        self._limit = 0
        self._repeated = 0
        self._vain = 0
        self._unasked = False
        self._by_part: set[str] = set()
        self._steps = self._walk()
        self._asked: Query | None = next(self._steps, None)

    @property
    def query(self) -> Query | None:
        """The next query to ask; None when all are asked."""
        return self._asked

    @property
    def begun(self) -> bool:
        """Tell whether the first query was answered."""
        return self.queries > 0

    @property
    def listing(self) -> Listing:
        """The listing of all that was found so far."""
        return Listing(self._found, self.queries, self.doubt, self._counted(), self._repeated)

    def feed(self, answer: Answer) -> None:
        """Take the answer to the last `query`."""
        self.queries += 1
        if self._asked is not None and self._asked.level == self.level:
            self._evidence.note(answer)
            self._vain = self._vain + 1 if answer.cut and not answer.matches else 0
            for match in answer.matches:
                self._take(match)
            if self.queries > 1:
                self._by_part.update(match.get(self._unique, "") for match in answer.matches)
        try:
            self._asked = self._steps.send(answer)
        except StopIteration:
            self._asked = None

    def _take(self, match: Match) -> None:
        if uid := match.get(self._unique, ""):
            self._found.setdefault(uid, match)
            if (number := number_in(match.get(_NUMBER[self.level], ""))) is not None:
                self._numbers[uid] = number

    def _counted(self) -> int | None:
        raise NotImplementedError

    def _all_there(self) -> bool | None:
        """Tell whether as much is found as the archive counts; None where it does not count."""
        raise NotImplementedError

    def _further(self) -> Sequence[Callable[[Answer], Steps]]:
        """Return further ways."""
        return ()

    def _walk(self) -> Steps:
        whole = yield self._ask({})
        self._limit = whole.count
        self._repeated = sum(bool(match.get(self._unique)) for match in whole.matches) - len(self._found)
        # A listing that was looked into before, and has nothing new, is not looked into once more.
        looked_into = bool(self._known) and self._found.keys() <= self._known
        ended = looked_into or self._suffices(whole) or (yield from self._look_into(whole))
        if missing := [uid for uid in self._named if uid not in self._found]:
            yield from self._by_uid(missing, next(iter(self._found), ""))
        self.doubt = self._judged(whole, ended)
        return not self.doubt

    def _suffices(self, whole: Answer) -> bool:
        """Tell whether nothing says that there is more."""
        there = self._all_there()
        if there is not None:
            return there or (not whole.count and not whole.cut)
        return self._evidence.whole(whole) or self._had_enough(whole)

    def _had_enough(self, whole: Answer) -> bool:
        """Tell whether an answer of this size was looked into often enough: the next time is after twice as many of it."""
        again = self._evidence.again
        checked = not whole.cut and not self._evidence.cuts and whole.count <= self._evidence.checked
        return checked and again & (again + 1) != 0

    def _look_into(self, whole: Answer) -> Steps:
        first = len(self._found)
        if self._all_there() is None and not whole.cut and not self._evidence.cuts:
            answered = yield from self._probe(whole)
            if len(self._found) == first and not self._short():
                if answered or self._all_there() or whole.count < LEAST_CAP:
                    self._evidence.found_whole(whole.count)
                    return True
                self._unasked = True
                return False
            if len(self._found) > first:
                self._evidence.found_cut(whole.count)
        ended = False
        for way in (self._by_prefix, self._by_range, self._one_by_one, *self._further()):
            if self._all_there() or self._spent():
                break
            ended = (yield from way(whole)) or ended
            if ended and self._all_there() is None:
                break
        if len(self._found) > first:
            self._evidence.found_cut(whole.count)
        return ended

    def _judged(self, whole: Answer, ended: bool) -> str:
        """Return why there may be more; `ended` says that a way came to its end, or that nothing raises a suspicion."""
        if self._short():
            return f"the source lists fewer than it counts: counted {self._counted()}, listed {self._listed()}"
        if ended or self._all_there():
            return ""
        if self._unasked:
            return f"the source lists {whole.count} {_plural(self.level, whole.count)}, and cannot be asked whether there are more"
        return f"the source gives no more than {whole.count} {_plural(self.level, whole.count)} at a time: there may be more"

    def _listed(self) -> int:
        return len(self._found)

    def _short(self) -> bool:
        return self._all_there() is False

    def _probe(self, whole: Answer) -> Steps:
        """Ask for a few numbers: one that brings something new shows that the answer was cut short."""
        first, size = len(self._found), whole.count
        for number in dict.fromkeys((size + 1, size, size + 2, (size + 1) // 2)):
            if len(self._found) == first and not (yield from self._ofnumber_in(number)):
                return (yield from self._probe_by_prefix())
        return True

    def _probe_by_prefix(self) -> Steps:
        """Ask by what the UIDs begin with, a character further than those that were found."""
        first, common = len(self._found), self._common()
        for character in _DIGITS:
            answer = yield self._ask({self._unique: f"{common}{character}*"})
            if answer.refused or not self._begin_with(answer, common + character):
                return False
            if len(self._found) > first:
                return True
        return any(uid.startswith(common) for uid in self._by_part)

    def _by_prefix(self, whole: Answer) -> Steps:
        """Ask by what the UIDs begin with, first those like the ones found, then all others."""
        common = self._common()
        answer = yield self._ask({self._unique: f"{common}*"})
        if answer.refused or not (answer.matches or answer.cut) or not self._begin_with(answer, common):
            return False
        ended = yield from self._longer(common, answer)
        for length in range(len(common) - 1, -1, -1):
            for character in _DIGITS:
                if self._all_there() or self._spent():
                    return bool(self._all_there())
                if character == common[length]:
                    continue
                other = common[:length] + character
                answer = yield self._ask({self._unique: f"{other}*"})
                if answer.refused or not self._begin_with(answer, other):
                    return False
                ended = (yield from self._longer(other, answer)) and ended
        return ended

    def _common(self) -> str:
        """Return what the UIDs that are found begin with, or where they have nothing in common, the first of them.

        Where nothing was found: many devices make UIDs out of the UID above.
        """
        uids = list(self._found) or [f"{list(self._keys.values())[-1]}."]
        common = os.path.commonprefix(uids)  # noqa: RUF071 - characters are meant
        return common if common and len(uids) > 1 else uids[0][: uids[0].rfind(".") + 1]

    def _longer(self, prefix: str, answer: Answer) -> Steps:
        """Ask for what begins with a character more, where an answer may have been cut."""
        if self._is_whole(answer):
            return True
        if len(prefix) >= 64:
            return False
        ended = True
        if is_uid(prefix):
            yield self._ask({self._unique: prefix})
        for character in _DIGITS:
            if self._all_there() or self._spent():
                return bool(self._all_there())
            one = prefix + character
            part = yield self._ask({self._unique: f"{one}*"})
            if part.refused or not self._begin_with(part, one):
                return False
            ended = (yield from self._longer(one, part)) and ended
        return ended

    def _begin_with(self, answer: Answer, prefix: str) -> bool:
        return all(match.get(self._unique, prefix).startswith(prefix) for match in answer.matches)

    def _by_range(self, whole: Answer) -> Steps:
        """Ask for ranges of numbers, halved where the answer may have been cut."""
        yield self._ask({}, number=True)
        highest = max([*self._numbers.values(), self._counted() or 0, whole.count, 1])
        top = (1 << highest.bit_length() + 1) - 1
        answer = yield self._range(0, top)
        if answer.refused or not answer.matches or not self._in_range(answer, 0, top):
            return False
        ended = yield from self._halved(0, top, answer)
        beyond = yield self._range(top + 1, _LARGEST)
        if beyond.refused or not self._in_range(beyond, top + 1, _LARGEST):
            return False
        ended = (yield from self._halved(top + 1, _LARGEST, beyond)) and ended
        return ended and len(self._numbers) == len(self._found)

    def _halved(self, first: int, last: int, answer: Answer) -> Steps:
        if self._is_whole(answer):
            return True
        if first == last or self._spent():
            return False
        middle = (first + last) // 2
        ended = True
        for begin, end in ((first, middle), (middle + 1, last)):
            part = yield self._range(begin, end)
            if part.refused or not self._in_range(part, begin, end):
                return False
            ended = (yield from self._halved(begin, end, part)) and ended
        return ended

    def _range(self, first: int, last: int) -> Query:
        return self._ask({_NUMBER[self.level]: str(first) if first == last else f"{first}-{last}"})

    def _in_range(self, answer: Answer, first: int, last: int) -> bool:
        numbers = (number_in(match.get(_NUMBER[self.level], "")) for match in answer.matches)
        return all(number is not None and first <= number <= last for number in numbers)

    def _one_by_one(self, whole: Answer) -> Steps:
        """Ask number by number: the gaps between those that are known, what follows, then those that are known."""
        known = set(self._numbers.values())
        numbered = len(self._numbers) == len(self._found)
        begin, end = min([*known, 1]), max([*known, self._counted() or 0])
        gaps = (number for number in range(begin, end + 1) if number not in known)
        for numbers, patience in ((gaps, VAIN), (upward(end + 1), VAIN), (iter((begin - 1,)), 1)):
            if not (yield from self._while_it_brings(numbers, patience)):
                return False
        patience = SAMPLE if self._short() else len(known)
        alone = yield from self._while_it_brings(iter(sorted(known)), max(patience, 1))
        return alone and numbered and self._limit > 1

    def _while_it_brings(self, numbers: Iterator[int], patience: int) -> Steps:
        """Ask for numbers until so many in a row brought nothing new; returns whether the archive answers such queries."""
        vain = 0
        for number in numbers:
            if vain >= patience or self._all_there():
                return True
            if self._spent():
                return False
            before = len(self._found)
            if not (yield from self._ofnumber_in(number)):
                return False
            vain = vain + 1 if len(self._found) == before else 0
        return True

    def _ofnumber_in(self, number: int) -> Steps:
        """Ask for one number; returns whether the archive answered by it."""
        answer = yield self._ask({_NUMBER[self.level]: str(number)})
        found = [number_in(match.get(_NUMBER[self.level], "")) for match in answer.matches]
        if answer.refused or any(one is not None and one != number for one in found):
            return False
        return not (None in found and len(found) > 1)

    def _by_uid(self, uids: Sequence[str], known: str) -> Steps:
        """Ask for instances or series by their UIDs: lists of them, and one by one where lists are not answered.

        `known` is one that is there: an archive that answers it and nothing else of a list has nothing else of it.
        """
        left = list(uids)
        while left:
            if self._spent():
                return False
            some = left[:AT_A_TIME]
            asked = dict.fromkeys([known, *some] if known else some)
            answer = yield self._ask({self._unique: "\\".join(asked)})
            answered = {match.get(self._unique, "") for match in answer.matches}
            if not answered <= asked.keys() or (len(asked) > 1 and len(answered) < 2 and not self._tells_alone(known, answer)):
                for uid in some if len(asked) > 1 else ():
                    if not self._spent():
                        yield self._ask({self._unique: uid})
                left = left[len(some) :]
                continue
            cut = answer.cut or (len(answered) < len(asked) and answer.count >= self._evidence.most)
            again = [uid for uid in some if uid not in self._found] if cut and answered & set(some) else []
            left = [*again, *left[len(some) :]]
        return True

    def _tells_alone(self, known: str, answer: Answer) -> bool:
        """Tell whether an answer with only the known one in it shows that lists are matched: where more than one ever came."""
        return len(answer.matches) == 1 and answer.matches[0].get(self._unique) == known and self._evidence.most > 1

    def _is_whole(self, answer: Answer) -> bool:
        return not answer.cut and not answer.refused and answer.count < max(self._limit, 1)

    def _spent(self) -> bool:
        return self.queries >= MAX_QUERIES + 2 * len(self._found) or self._vain >= MAX_VAIN

    def _ask(self, keys: Mapping[str, str], *, number: bool = False) -> Query:
        wanted = (*self._wanted, _NUMBER[self.level]) if number else self._wanted
        return Query(self.level, {**self._keys, **keys}, tuple(one for one in wanted if one not in keys))


def number_in(text: str) -> int | None:
    """Return a whole number as archives write it, None where it is none."""
    digits = text.strip().removeprefix("+")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.removeprefix("-")
    return sign * int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 11 else None


def _plural(level: Level, count: int) -> str:
    return "series" if level == "SERIES" else "instance" if count == 1 else "instances"
