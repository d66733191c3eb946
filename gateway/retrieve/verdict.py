"""The expectation of a study, the instances that came against it, and the verdict that follows. Pure.

The source's C-FIND list is the expectation; the instances durable here are those received. Statuses and counts of C-MOVE
responses have no part in it. An *unfit* instance is not of the study, series, SOP class or transfer syntax that the source lists:
it does not count as received, stays missing, is asked for again in other ways, and the verdict names it with the reason. Instances
that were recorded as unfit when they came are unfit too (`ledger.received.instances`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.association.upper.negotiation import UNCOMPRESSED
from gateway.core.domain import Basis, VerdictKind

if TYPE_CHECKING:
    from gateway.ledger.jobs.retrievals import Came

LISTS_FEWER = "the source lists fewer than it counts"

NOT_LISTED_AGAIN = "the source did not list the study again: it may have grown meanwhile"


@dataclass(frozen=True)
class Expectation:
    """The source's list of a study.

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
    transfer_syntaxes: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    """The Available Transfer Syntax UIDs (0008,3002) of each instance of which the source tells them."""
    counted: int | None = None
    """The number of instances that the source counts in what is wanted, whatever it lists; None where it gave no count."""
    doubt: str = ""
    """The reason why there may be more than its lister found, whatever the source counts; empty where nothing says so."""

    @property
    def short(self) -> str:
        """The reason why the source may have more than it lists; empty where all that it has is listed."""
        if not self.doubt and self.basis is Basis.UIDS and (self.counted or 0) > len(self.listed):
            return f"{LISTS_FEWER}: counted {self.counted}, listed {len(self.listed)}"
        return self.doubt

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
        transfer_syntaxes={**first.transfer_syntaxes, **again.transfer_syntaxes},
        counted=first.counted if again.counted is None else again.counted,
        doubt=again.doubt,
    )


@dataclass(frozen=True)
class Sorted:
    """The instances that came, by SOP Instance UID: the `fit` ones with their length in bytes, the `unfit` ones with the reason.

    `classes` has the SOP classes of what is fit.
    """

    fit: Mapping[str, int] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)


def sort(came: Iterable[Came], study: str, expectation: Expectation) -> Sorted:
    """Return what of `came` for the retrieval of `study` is what is expected.

    Of several contents under one SOP Instance UID the newest decides; where none of them is the newest, it came for another study.
    """
    by_uid: dict[str, list[Came]] = {}
    for one in came:
        by_uid.setdefault(one.sop_instance_uid, []).append(one)
    fit, unfit, classes = dict[str, int](), dict[str, str](), dict[str, str]()
    for uid, contents in by_uid.items():
        newest = [one for one in contents if one.current] or contents
        reasons = [why_unfit(one, study, expectation) for one in newest]
        if all(reasons):
            unfit[uid] = reasons[-1]
        else:
            good = newest[reasons.index("")]
            fit[uid], classes[uid] = good.length, good.sop_class_uid
    return Sorted(fit, unfit, classes)


def why_unfit(came: Came, study: str, expectation: Expectation) -> str:
    """Return why `came` is not what is expected, in words without patient data; nothing where it is.

    A value that the source does not tell, or an instance does not say of itself, speaks against nothing.
    """
    return next(_reasons(came, study, expectation), "")


def _reasons(came: Came, study: str, expectation: Expectation) -> Iterator[str]:
    uid = came.sop_instance_uid
    if came.study_instance_uid not in ("", study):
        yield "inside another study"
    if came.series_instance_uid not in ("", expectation.listed.get(uid) or came.series_instance_uid):
        yield "inside another series than the source lists"
    if came.sop_class_uid != expectation.sop_classes.get(uid, came.sop_class_uid):
        yield "as another SOP class than the source lists"
    if not _same_encoding(came.transfer_syntax_uid, expectation.transfer_syntaxes.get(uid, ())):
        yield "in another transfer syntax than the source has"
    if came.unfit:
        yield came.unfit


def _same_encoding(transfer_syntax: str, listed: Iterable[str]) -> bool:
    """Tell whether an instance in `transfer_syntax` is as the source has it; without compression every form is as good."""
    known = frozenset(listed)
    return not known or transfer_syntax in known or (transfer_syntax in UNCOMPRESSED and not known.isdisjoint(UNCOMPRESSED))


@dataclass(frozen=True)
class Tally:
    """The arrivals against the expectation: UIDs still missing in the order listed, and those nobody listed.

    `short` is the number of instances still missing, None where nothing says how many there are. `unfit` has the reason for each
    instance that came and is not what was listed: it is missing all the same.
    """

    missing: tuple[str, ...]
    received: int
    unexpected: tuple[str, ...]
    short: int | None
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Tell whether nothing is missing, provably."""
        return self.short == 0


def tally(
    expectation: Expectation,
    received: Collection[str],
    skipped: Collection[str] = (),
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> Tally:
    """Compare what was received with what was expected and not skipped; `unfit` came too, and is not what was expected."""
    missing = tuple(uid for uid in expectation.listed if uid not in received and uid not in skipped)
    unexpected = tuple(sorted(uid for uid in (*received, *unfit) if uid not in expectation.listed))
    if expectation.basis is Basis.UIDS:
        wanted = sum(uid not in skipped for uid in expectation.listed)
        return Tally(missing, wanted - len(missing), unexpected, len(missing), unfit)
    if expectation.count is None:
        return Tally(missing, len(received), unexpected, None, unfit)
    return Tally(missing, len(received), unexpected, max(len(missing), expectation.count - len(received)), unfit)


def judge(expectation: Expectation, result: Tally, *, skipped: int = 0, trouble: Sequence[str] = ()) -> tuple[VerdictKind, str]:
    """Return the verdict on a study and the words for it; `trouble` is what went wrong on the way, worst first.

    Complete rests on the sets alone, and on sets that can be believed: not while the source may have more than it lists, nor while
    instances came for a whole study that it does not list. Trouble that was repaired is not mentioned.
    """
    notes = list(expectation.notes)
    by_uid = expectation.basis is Basis.UIDS
    if expectation.short:
        notes.insert(0, expectation.short)
    if result.unexpected and by_uid:
        notes.append(f"{instances(len(result.unexpected))} came that the source does not list")
    notes += [f"{instances(count)} came {reason}" for reason, count in Counter(result.unfit.values()).items()]
    if expectation.empty and not result.received and not expectation.short:
        return VerdictKind.EMPTY, _words(["the source lists no instance of this study", *notes])
    doubtful = bool(expectation.short) or (by_uid and expectation.whole_study and bool(result.unexpected))
    if result.whole and not doubtful:
        return VerdictKind.COMPLETE, _words(notes)
    if result.short is None:
        notes.append("the source tells neither UIDs nor a count, so nothing proves that all instances came")
    some = result.received > 0 or skipped > 0
    return (VerdictKind.INCOMPLETE if some else VerdictKind.FAILED), _words([*trouble, *notes])


def conflict_notes(count: int) -> list[str]:
    """Return what to say of `count` instances that contradicted what was here under their UIDs."""
    if not count:
        return []
    return [f"{instances(count)} came with other content than was here under the same SOP Instance UID: the newer is delivered"]


def instances(count: int) -> str:
    """Return `count` with its noun."""
    return "1 instance" if count == 1 else f"{count} instances"


def _words(notes: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))
