"""Expected against received, and the verdict that follows. Pure.

What a source lists by C-FIND is the expectation; what is durable here is what was received. Statuses and counts of C-MOVE
responses have no part in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from gateway.domain import Basis, VerdictKind


@dataclass(frozen=True)
class Expectation:
    """What a source lists of a study.

    `listed` maps each SOP Instance UID to its Series Instance UID, `sop_classes` to its SOP class where the source gave that;
    `series` names all series, also those whose instances
    the source did not list. With basis counts `count` is the source's own number of instances, or None where it gave none.
    """

    basis: Basis
    count: int | None
    listed: Mapping[str, str]
    series: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    whole_study: bool = True
    """False where only a part of the study is wanted: it must not be asked for at STUDY level."""
    whole_series: bool = True
    """False where only some instances are: not at SERIES level either."""
    sop_classes: Mapping[str, str] = field(default_factory=dict, compare=False)
    doubt: str = ""
    """Why the source may have more than it lists; empty where all that it has is listed."""

    @property
    def empty(self) -> bool:
        """Tell whether the source has no instance of the study."""
        return self.count == 0 and not self.listed

    @cached_property
    def by_series(self) -> Mapping[str, tuple[str, ...]]:
        """The SOP Instance UIDs of each series, in the order listed."""
        groups: dict[str, list[str]] = {}
        for uid, series in self.listed.items():
            groups.setdefault(series, []).append(uid)
        return {series: tuple(uids) for series, uids in groups.items()}


@dataclass(frozen=True)
class Tally:
    """What came of what was expected: UIDs still missing in the order listed, and those nobody listed.

    `short` is the number of instances still missing, None where nothing says how many there are.
    """

    missing: tuple[str, ...]
    received: int
    unexpected: tuple[str, ...]
    short: int | None

    @property
    def whole(self) -> bool:
        """Tell whether nothing is missing, provably."""
        return self.short == 0


def tally(expectation: Expectation, received: Collection[str], skipped: Collection[str] = ()) -> Tally:
    """Compare what was received with what was expected and not skipped."""
    missing = tuple(uid for uid in expectation.listed if uid not in received and uid not in skipped)
    unexpected = tuple(sorted(uid for uid in received if uid not in expectation.listed))
    if expectation.basis is Basis.UIDS:
        wanted = sum(uid not in skipped for uid in expectation.listed)
        return Tally(missing, wanted - len(missing), unexpected, len(missing))
    if expectation.count is None:
        return Tally(missing, len(received), unexpected, None)
    return Tally(missing, len(received), unexpected, max(len(missing), expectation.count - len(received)))


NOT_LISTED_AGAIN = "the source did not list the study again: it may have grown meanwhile"


def grown(first: Expectation, again: Expectation) -> Expectation:
    """Join what the source listed at first with what it lists now: it may have more; what it no longer lists stays expected."""
    if first.basis is Basis.UIDS and again.basis is Basis.COUNTS:
        return replace(first, notes=(*first.notes, NOT_LISTED_AGAIN))
    vanished = sum(uid not in again.listed for uid in first.listed) if again.basis is Basis.UIDS else 0
    notes = list(dict.fromkeys((*first.notes, *again.notes)))
    if vanished:
        notes.append(f"the source no longer lists {instances(vanished)} that it listed at first")
    listed = {**first.listed, **again.listed}
    counts = [count for count in (first.count, again.count) if count is not None]
    return replace(
        first,
        basis=again.basis if first.basis is Basis.COUNTS else first.basis,
        count=len(listed) if Basis.UIDS in (first.basis, again.basis) else max(counts, default=None),
        listed=listed,
        series=tuple(dict.fromkeys((*first.series, *again.series))),
        notes=tuple(notes),
        sop_classes={**first.sop_classes, **again.sop_classes},
        doubt=again.doubt,
    )


def judge(expectation: Expectation, result: Tally, *, skipped: int = 0, trouble: Sequence[str] = ()) -> tuple[VerdictKind, str]:
    """Return the verdict on a study and the words for it; `trouble` is what went wrong on the way, worst first.

    Complete rests on the sets alone; trouble that was repaired is not mentioned.
    """
    notes = list(expectation.notes)
    if result.unexpected and expectation.basis is Basis.UIDS:
        notes.append(f"{instances(len(result.unexpected))} came that the source does not list")
    if expectation.empty and not result.received:
        return VerdictKind.EMPTY, _words(["the source lists no instance of this study", *notes])
    if expectation.doubt:
        notes.insert(0, expectation.doubt)
    if result.whole and not expectation.doubt:
        return VerdictKind.COMPLETE, _words(notes)
    if result.short is None:
        notes.append("the source tells neither UIDs nor a count, so nothing proves that all instances came")
    some = result.received > 0 or skipped > 0
    return (VerdictKind.INCOMPLETE if some else VerdictKind.FAILED), _words([*trouble, *notes])


def instances(count: int) -> str:
    """Return `count` with its noun."""
    return "1 instance" if count == 1 else f"{count} instances"


def _words(notes: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))
