"""The differences between two places. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from gateway.archives.places import SeriesHeld, StudyHeld

T = TypeVar("T")
Make = Callable[["Kind", str], "Difference"]


class Kind(StrEnum):
    """The kind of a difference."""

    ONLY_A = "only in A"
    ONLY_B = "only in B"
    COUNT = "counts differ"
    CONTENT = "content differs"
    UNKNOWN = "not known"
    """It could not be compared; the note says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the places differ: a study, a series of it, or an instance; the UIDs below it are empty.

    `a` and `b` are how many instances each counts, None where it does not say. `elements` names the elements that differ, with
    ``pixels`` among them where those do; never a value.
    """

    kind: Kind
    study: str
    series: str = ""
    instance: str = ""
    a: int | None = None
    b: int | None = None
    elements: tuple[str, ...] = ()
    note: str = ""


def of_studies(a: Mapping[str, StudyHeld], b: Mapping[str, StudyHeld], *, counts: bool) -> Iterator[Difference]:
    """Yield the studies that only one side has and, with `counts`, those of which they count differently."""
    yield from _sides(a, b, lambda kind, uid: Difference(kind, uid, a=_count(a.get(uid)), b=_count(b.get(uid))))
    for uid in a.keys() & b.keys() if counts else ():
        yield from _counted(Difference(Kind.COUNT, uid, a=a[uid].instances, b=b[uid].instances))


def of_series(study: str, a: Mapping[str, SeriesHeld], b: Mapping[str, SeriesHeld], *, counts: bool) -> Iterator[Difference]:
    """Yield the series of a study that only one side has and, with `counts`, those of which they count differently."""
    yield from _sides(a, b, lambda kind, uid: Difference(kind, study, uid, a=_count(a.get(uid)), b=_count(b.get(uid))))
    for uid in a.keys() & b.keys() if counts else ():
        yield from _counted(Difference(Kind.COUNT, study, uid, a=a[uid].instances, b=b[uid].instances))


def of_instances(study: str, series: str, a: Collection[str], b: Collection[str]) -> Iterator[Difference]:
    """Yield the instances of a series that only one side has."""
    left, right = dict.fromkeys(a, None), dict.fromkeys(b, None)
    yield from _sides(left, right, lambda kind, uid: Difference(kind, study, series, uid))


def relevant(found: Difference, ignore: str) -> bool:
    """Tell whether a difference counts where what is missing in `ignore` (``a``, ``b`` or empty) does not."""
    return not (ignore == "a" and found.kind is Kind.ONLY_B) and not (ignore == "b" and found.kind is Kind.ONLY_A)


def _sides(a: Mapping[str, T], b: Mapping[str, T], make: Make) -> Iterator[Difference]:
    yield from (make(Kind.ONLY_A, uid) for uid in sorted(a.keys() - b.keys()))
    yield from (make(Kind.ONLY_B, uid) for uid in sorted(b.keys() - a.keys()))


def _counted(found: Difference) -> Iterator[Difference]:
    """Yield `found` where both count and do not agree; a side that does not count is asked more closely, or not compared."""
    if None not in (found.a, found.b) and found.a != found.b:
        yield found


def _count(held: StudyHeld | SeriesHeld | None) -> int | None:
    return None if held is None else held.instances
