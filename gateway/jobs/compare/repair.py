"""The studies, or parts of them, that are retrieved from one side to repair what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.jobs.compare.differences import Difference, Kind
from gateway.jobs.compare.request import Repair
from gateway.retrieve import Wanted


@dataclass
class _Parts:
    whole: bool = False
    series: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)
    differences: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """One thing to retrieve; with `skip_existing` only what the other side does not hold of it."""

    wanted: Wanted
    skip_existing: bool = False


def directions(repair: Repair) -> tuple[Kind, ...]:
    """Return the kinds of differences that are repaired: what only A has is brought to B, what only B has to A."""
    return {Repair.A_TO_B: (Kind.ONLY_A,), Repair.B_TO_A: (Kind.ONLY_B,), Repair.BOTH: (Kind.ONLY_A, Kind.ONLY_B)}[repair]


def fetches(found: Iterable[Difference], missing: Kind, *, overwrite: bool) -> list[Fetch]:
    """Return what is to be retrieved of the side that has what is of kind `missing`.

    Parts with different counts are retrieved as far as the other side lacks them. With `overwrite`, instances that differ in
    content are retrieved too, to replace the other side's.
    """
    studies: dict[str, _Parts] = {}
    for one in found:
        parts = studies.setdefault(one.study, _Parts())
        if one.kind is missing or (one.kind is Kind.CONTENT and overwrite):
            if one.instance:
                parts.instances.add(one.instance)
            elif one.series:
                parts.series.add(one.series)
            else:
                parts.whole = True
        elif one.kind is Kind.COUNT:
            parts.differences = True
    return [fetch for study, parts in studies.items() for fetch in _fetches(study, parts)]


def _fetches(study: str, parts: _Parts) -> Iterable[Fetch]:
    if parts.whole:
        yield Fetch(Wanted(study))
        return
    if parts.differences:
        yield Fetch(Wanted(study), skip_existing=True)
        return
    if parts.series:
        yield Fetch(Wanted(study, series=frozenset(parts.series)))
    if parts.instances:
        yield Fetch(Wanted(study, instances=frozenset(parts.instances)))
