"""The fitness of instances that came: of the study, series, SOP class and transfer syntax that the source lists. Pure.

An *unfit* instance does not count as received: it stays missing, is asked for again in other ways, and the verdict names it
with the reason. Instances that were recorded as unfit when they came are unfit too (`ledger.received.instances`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.association.upper.negotiation import UNCOMPRESSED
from gateway.ledger.jobs.retrievals import Came
from gateway.retrieve.verdict.tally import Expectation


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
