"""The steps of a retrieval: the first request, the next try when instances are missing, and the waits between them. Pure.

A *target* is one C-MOVE, or what a C-GET asks for in its place; a *step* is a way to ask for what is missing; a *round* is one
step carried out, with what it gained.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice, pairwise
from typing import Literal

from gateway.association.scu.offers import MAX_CLASSES
from gateway.core.backoff import doubling_s
from gateway.core.domain import Basis
from gateway.retrieve.verdict import Expectation

AcceptanceOrder = Literal["j2k-first", "uncompressed-first", "as-proposed", "compressed-first"]
"""The transfer syntaxes that our acceptor prefers. With ``as-proposed`` it takes what the source proposes first in each context.

The last one takes what is compressed with loss before what is uncompressed.
"""

Choice = Literal["move", "get", "auto"]
"""The method in the configuration; auto is to find out."""

USUAL_ORDERS: tuple[AcceptanceOrder, ...] = ("j2k-first", "uncompressed-first", "as-proposed")
"""Those that are learned, in the order in which they are tried."""

CHUNK = 100
"""SOP Instance UIDs in one C-MOVE at IMAGE level: 6.5 KB at most, far below the 64 KiB of an explicit VR UI element."""

SPLIT_AT = 1000
"""A study of more instances is asked for series by series: a failure then costs a series, and room is looked for between them."""

SINGLY_AT_MOST = 32
"""So many missing instances are asked for one by one, to get round one that stops the source."""

MAX_ROUNDS = 12
"""Rounds in one retrieval at most."""

MAX_SAME_STEP = 3
"""The number of times that one step is taken at most, even when it gains a little each time."""

MAX_BROKEN = 3
"""Rounds in a row that may end in a broken association or a stall without a single instance."""


class Level(StrEnum):
    """The level of a C-MOVE (PS3.4 §C.4.2.1.4)."""

    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


@dataclass(frozen=True)
class Target:
    """The identifier of one C-MOVE: a study, one of its series, or instances of one series."""

    level: Level
    study: str
    series: str = ""
    uids: tuple[str, ...] = ()


class Way(StrEnum):
    """The way in which a step asks."""

    FIRST = "first"
    IMAGE = "image"
    SINGLY = "singly"
    SERIES = "series"
    STUDY = "study"


@dataclass(frozen=True)
class Step:
    """A way to ask, and which transfer syntaxes our acceptor prefers meanwhile."""

    way: Way
    order: AcceptanceOrder

    def name(self, usual: AcceptanceOrder) -> str:
        """Return what to call it to those who watch, where `usual` is the source's order."""
        return str(self.way) if self.order == usual else f"other-order-{self.way}"


class End(StrEnum):
    """The ways in which a C-MOVE can end."""

    ANSWERED = "answered"
    """With a final response, whatever it says."""

    BUSY = "busy"
    """The source refused before it did anything: out of resources."""

    STALLED = "stalled"
    """Neither a response nor an instance came for the no-progress time."""

    BROKEN = "broken"
    """There was no association, or it ended without a final response."""

    REFUSED = "refused"
    """The source will answer the same to every try: unknown move destination, no such service, not authorized."""


class Method(StrEnum):
    """An operation that retrieves (PS3.4 §C.4)."""

    MOVE = "move"
    """C-MOVE: the source sends on associations that it requests."""

    GET = "get"
    """C-GET: it sends on the association on which it is asked."""


@dataclass(frozen=True)
class Round:
    """A step carried out: how it ended, how many instances it gained, how many sub-operations the source said had failed.

    `unfit` is how many of the missing instances came, but not as they were asked for; `classes` are the SOP classes of what it
    gained.
    """

    step: Step
    end: End
    gained: int
    failed: int = 0
    unfit: int = 0
    classes: frozenset[str] = frozenset()


def methods(choice: Choice, works: Method | None) -> tuple[Method, ...]:
    """Return by what to ask, and by what where that is in vain; `works` is what the source is known to carry out."""
    if choice != "auto":
        return (Method(choice),)
    return (Method.GET, Method.MOVE) if works is Method.GET else (Method.MOVE, Method.GET)


def in_vain(rounds: Sequence[Round], *, proven: bool) -> bool:
    """Tell whether the other operation is likelier to help than further rounds of this one.

    That is so where it brought nothing and is refused for good, or never brought anything before (not `proven`): a source that
    cannot reach us answers C-MOVE in as many ways as there are sources.
    """
    if any(one.gained for one in rounds):
        return False
    return rounds[-1].end is End.REFUSED or not (proven or rounds[-1].end is End.BUSY)


def others(order: AcceptanceOrder) -> tuple[AcceptanceOrder, ...]:
    """Return the other acceptance orders to try, the likeliest first."""
    return tuple(one for one in USUAL_ORDERS if one != order)


def next_step(rounds: Sequence[Round], missing: int | None, *, basis: Basis, both_orders: bool = False) -> Step | None:
    """Return what to try next for `missing` instances (None: unknown), or None when nothing else can help.

    `rounds` holds at least the first. `both_orders` says that the source is known to need both acceptance orders.
    """
    if missing == 0 or len(rounds) >= MAX_ROUNDS or rounds[-1].end is End.REFUSED or _given_up(rounds):
        return None
    order = rounds[0].step.order
    if missing is None:
        return None if rounds[-1].gained or len(rounds) > 1 else Step(Way.STUDY, others(order)[0])
    return next((step for step in _ladder(rounds, missing, basis, both_orders) if _open(step, rounds)), None)


def _ladder(rounds: Sequence[Round], missing: int, basis: Basis, both_orders: bool) -> Iterator[Step]:
    """Yield the steps that may help, the likeliest first.

    A source that says that sub-operations failed, or sent what is unfit, was at least able to send: preferring other transfer
    syntaxes is likelier to help it than asking in smaller pieces.
    """
    order = rounds[0].step.order
    if all(one.end in (End.BROKEN, End.BUSY) and not one.gained for one in rounds):
        yield Step(Way.FIRST, order)
    same = list(_ways(rounds, missing, basis, order))
    swapped = [list(_ways(rounds, missing, basis, one)) for one in others(order)]
    sends = rounds[-1].failed or rounds[-1].unfit
    yield from () if both_orders or rounds[-1].unfit else same[:1]
    if both_orders or sends:
        yield from swapped[0][:1]
    if sends:
        yield from swapped[1][:1]
    if _stuck(rounds):
        yield from _ways(rounds, missing, basis, "compressed-first")
    yield from (*swapped[0], *same) if both_orders or sends else (*same, *swapped[0])
    if sends or basis is Basis.UIDS:
        yield from swapped[1]


def _stuck(rounds: Sequence[Round]) -> bool:
    """Tell whether the source tried and failed in each of the two usual orders, as one does that stores with loss.

    Only then is lossy compression preferred: a source that can compress by itself must not be tempted to.
    """
    failed = {one.step.order for one in rounds if one.failed and not one.gained}
    return failed >= {"j2k-first", "uncompressed-first"}


def _ways(rounds: Sequence[Round], missing: int, basis: Basis, order: AcceptanceOrder) -> Iterator[Step]:
    if basis is Basis.COUNTS:
        yield from (Step(Way.SERIES, order), Step(Way.STUDY, order))
        return
    yield Step(Way.IMAGE, order)
    if rounds[-1].unfit >= missing:
        return  # all of them came: that they are asked for in other pieces makes them no other
    if 1 < missing <= SINGLY_AT_MOST:
        yield Step(Way.SINGLY, order)
    answers_images = any(one.gained for one in rounds if one.step.way in (Way.IMAGE, Way.SINGLY))
    if not answers_images:
        yield Step(Way.SERIES, order)


def _open(step: Step, rounds: Sequence[Round]) -> bool:
    """Tell whether `step` is worth taking: not yet taken, or it gained, or its association broke, and not too often.

    A source that stopped in the middle stops there again: it is asked in another way instead.
    """
    taken = [one for one in rounds if one.step == step]
    if not taken:
        return True
    return len(taken) < MAX_SAME_STEP and (taken[-1].gained > 0 or taken[-1].end in (End.BROKEN, End.BUSY))


def broken_in_a_row(rounds: Sequence[Round]) -> int:
    """Return how many of the last rounds broke without a single instance."""
    return next((number for number, one in enumerate(reversed(rounds)) if one.end is not End.BROKEN or one.gained), len(rounds))


def _given_up(rounds: Sequence[Round]) -> bool:
    last = rounds[-MAX_BROKEN:]
    return len(last) == MAX_BROKEN and all(one.end is not End.ANSWERED and not one.gained for one in last)


def lesson(rounds: Sequence[Round]) -> AcceptanceOrder | Literal["both"] | None:
    """Return what a retrieval taught about the source's order of transfer syntaxes, or None where it taught nothing.

    An order that brought instances after the usual one had brought none is learned; when both brought some of the same SOP class,
    both are needed. To prefer lossy compression is never learned.
    """
    gains = _gains(rounds)
    usual = gains.pop(rounds[0].step.order, None) if rounds else None
    if not gains:
        return None
    if usual is None:
        return next(iter(gains))
    told = usual and all(gains.values())
    return None if told and all(usual.isdisjoint(classes) for classes in gains.values()) else "both"


def class_lessons(rounds: Sequence[Round]) -> Mapping[str, AcceptanceOrder]:
    """Return the SOP classes of which another order than the usual one, and no second one, brought instances."""
    brought: dict[str, list[AcceptanceOrder]] = {}
    for order, classes in _gains(rounds).items():
        for sop_class in classes:
            brought.setdefault(sop_class, []).append(order)
    return {sop_class: orders[0] for sop_class, orders in brought.items() if len(orders) == 1 and orders[0] != rounds[0].step.order}


def _gains(rounds: Sequence[Round]) -> dict[AcceptanceOrder, frozenset[str]]:
    """Return the orders that brought something, those that brought most first, each with the SOP classes of what it brought."""
    counts: dict[AcceptanceOrder, int] = {}
    classes: dict[AcceptanceOrder, frozenset[str]] = {}
    for one in rounds:
        if one.gained and one.step.order in USUAL_ORDERS:
            counts[one.step.order] = counts.get(one.step.order, 0) + one.gained
            classes[one.step.order] = classes.get(one.step.order, frozenset()) | one.classes
    return {order: classes[order] for order in sorted(counts, key=lambda order: -counts[order])}


def class_orders(text: str | None) -> dict[str, AcceptanceOrder]:
    """Return the orders of single SOP classes that are written in `text`, as `learned.CLASS_ORDERS` has them."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    known = {name: name for name in USUAL_ORDERS}
    return {str(key): known[name] for key, name in found.items() if name in known} if isinstance(found, dict) else {}


def first_targets(study: str, expectation: Expectation, wanted: Collection[str]) -> tuple[Target, ...]:
    """Return the C-MOVEs that ask for `wanted` at the highest levels: nothing that is already here or elsewhere is moved."""
    if not expectation.listed or expectation.basis is Basis.COUNTS:
        return _counted(study, expectation)
    everything = (len(wanted) == len(expectation.listed) or bool(expectation.short)) and expectation.whole_study
    if everything and (len(wanted) <= SPLIT_AT or len(expectation.series) < 2):
        return (Target(Level.STUDY, study),)
    targets: list[Target] = []
    by_series = _by_series(expectation.listed, expectation.listed)
    for series, uids in _by_series(expectation.listed, wanted).items():
        whole = len(uids) == len(by_series[series]) and expectation.whole_series
        targets.extend([Target(Level.SERIES, study, series)] if whole else _images(study, series, uids, CHUNK))
    return tuple(targets)


def _counted(study: str, expectation: Expectation) -> tuple[Target, ...]:
    """Return the C-MOVEs at the highest level where no UIDs are known: of the study, or of the series that are wanted."""
    if expectation.whole_study:
        return (Target(Level.STUDY, study),)
    return tuple(Target(Level.SERIES, study, series) for series in expectation.series)


def targets(step: Step, study: str, expectation: Expectation, wanted: Collection[str]) -> tuple[Target, ...]:
    """Return the C-MOVEs of `step` for the instances `wanted`; with basis counts for all series."""
    if step.way is Way.FIRST:
        return first_targets(study, expectation, wanted)
    if step.way is Way.STUDY:
        return _counted(study, expectation)
    by_series = _by_series(expectation.listed, wanted)
    if step.way is Way.SERIES and expectation.whole_series:
        series = expectation.series if expectation.basis is Basis.COUNTS else tuple(by_series)
        return tuple(Target(Level.SERIES, study, uid) for uid in series) or (Target(Level.STUDY, study),)
    size = 1 if step.way is Way.SINGLY else CHUNK
    return tuple(target for series, uids in by_series.items() for target in _images(study, series, uids, size))


def image_targets(study: str, listed: Mapping[str, str], wanted: Collection[str]) -> tuple[Target, ...]:
    """Return the requests at IMAGE level for the instances `wanted`, of which `listed` tells the series."""
    by_series = _by_series(listed, wanted)
    return tuple(target for series, uids in by_series.items() for target in _images(study, series, uids, CHUNK))


def _by_series(listed: Mapping[str, str], wanted: Collection[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    asked = frozenset(wanted)  # a study may have 100,000 instances
    for uid, series in listed.items():
        if uid in asked:
            groups.setdefault(series, []).append(uid)
    return groups


def _images(study: str, series: str, uids: Sequence[str], size: int) -> list[Target]:
    edges = [*range(0, len(uids), size), len(uids)]
    return [Target(Level.IMAGE, study, series, tuple(uids[start:end])) for start, end in pairwise(edges)]


@dataclass(frozen=True)
class Part:
    """A part asked for with the same presentation contexts: the UIDs where they are known, and None for unknown SOP classes."""

    targets: tuple[Target, ...]
    uids: tuple[str, ...]
    sop_classes: frozenset[str] | None


def parts(target: Target, expectation: Expectation) -> tuple[Part, ...]:
    """Return `target` as it is, or in parts whose SOP classes fit on one association.

    The presentation contexts of a C-GET say what can come in it, so they are chosen by the SOP classes of what is missing.
    """
    uids = _uids(target, expectation)
    classes = sorted({expectation.sop_classes.get(uid, "") for uid in uids})
    if not uids or not classes[0]:
        return (Part((target,), uids, None),)
    if len(classes) <= MAX_CLASSES:
        return (Part((target,), uids, frozenset(classes)),)
    each = iter(classes)
    batches = iter(lambda: frozenset(islice(each, MAX_CLASSES)), frozenset())
    return tuple(_part_of(target.study, batch, uids, expectation) for batch in batches)


def remaining(part: Part, received: Collection[str], target: Target, expectation: Expectation) -> tuple[Target, ...]:
    """Return what is left to ask of `part` once `received` came; where no UIDs are known, all of it."""
    if not part.uids:
        return part.targets
    missing = [uid for uid in part.uids if uid not in received]
    if len(missing) == len(part.uids):
        return part.targets
    return image_targets(target.study, expectation.listed, missing)


def _part_of(study: str, classes: frozenset[str], uids: Sequence[str], expectation: Expectation) -> Part:
    some = tuple(uid for uid in uids if expectation.sop_classes[uid] in classes)
    return Part(image_targets(study, expectation.listed, some), some, classes)


def _uids(target: Target, expectation: Expectation) -> tuple[str, ...]:
    match target.level:
        case Level.IMAGE:
            return target.uids
        case Level.SERIES:
            return expectation.by_series.get(target.series, ())
    return tuple(expectation.listed)


@dataclass(frozen=True)
class Backoff:
    """The wait before trying again: doubling from `first_s` to `max_s`, with full jitter in the upper half."""

    first_s: float = 1.0
    max_s: float = 60.0
    tries: int = 8

    def delay(self, attempt: int, jitter: float) -> float | None:
        """Return the seconds before try number `attempt` + 1, or None when there have been enough; `jitter` is from 0 to 1."""
        if attempt >= self.tries:
            return None
        return doubling_s(self.first_s, self.max_s, attempt) * (1 + jitter) / 2


@dataclass(frozen=True)
class Patience:
    """The time for which arrivals must be quiet before the sets are compared (all in seconds).

    `settle_s` always; `patience_s` while the source claims to have sent more than came, as one does that answers before it
    has sent; `progress_s` where the source is known to do so.
    """

    settle_s: float
    progress_s: float

    @property
    def patience_s(self) -> float:
        """The time for which a source that was never seen to send after its final response is believed that it will."""
        return min(self.progress_s, 15 * self.settle_s)

    def pause(
        self,
        *,
        missing: int | None,
        claims_more: bool,
        asynchronous: bool,
        disproved: bool,
        quiet_s: float,
        fruitless_s: float = 0.0,
    ) -> float:
        """Return how many seconds more to wait for arrivals after the final response; 0 when it is time to compare.

        `missing` is None where the number is unknown. `disproved` says that this source's claim was waited for in vain before.
        `fruitless_s` is how long nothing came that was not here: a source may send the same again and again.
        """
        if missing == 0:
            return 0.0
        limit = self.settle_s
        if claims_more and not (disproved and not asynchronous):
            limit = self.progress_s if asynchronous and not disproved else self.patience_s
        return max(0.0, min(limit - quiet_s, self.progress_s - fruitless_s))
