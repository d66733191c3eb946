"""The contents of a source, asked by C-FIND: studies by key, then series of a study, then instances by series (PS3.4 §C.4.1).

IMAGE level is always asked with a Series Instance UID: without it the query is relational, which a source need not
support. The functions that take a `Finder` block on the association; the others are pure. Answers are input from a
stranger: UIDs are checked, and matches that contradict the key are passed over, since some sources ignore keys that they
do not know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.archives.lister import (
    InstanceLister,
    Knowledge,
    Listing,
    PresenceLister,
    SeriesLister,
    StudyLister,
    count_of,
    list_all,
)
from gateway.association.dimse.statuses import StatusKind, find_kind
from gateway.association.scu.query import Finder
from gateway.core.domain import Basis, is_sop_class, is_uid
from gateway.core.errors import DimseFailed
from gateway.retrieve.request import Wanted
from gateway.retrieve.verdict import Expectation, instances

ENCODINGS = ("SOPClassUID", "AvailableTransferSyntaxUID")
"""The attributes asked of each instance beside its UID, to tell whether it comes as the source has it (PS3.4 Table C.6-4)."""


@dataclass(frozen=True)
class SeriesListing:
    """A series that a source lists: its count where it gave one, and the instances it lists, None where it did not answer.

    `series_instance_uid` is empty for one that is listed under something that is no UID; `unreadable` is the number of
    instances that are. `repeated` is how often it listed an instance once more. `sop_classes` and `transfer_syntaxes` are those of
    the instances of which the source tells them. `doubt` says why there may be more instances than it lists.
    """

    series_instance_uid: str
    count: int | None
    uids: tuple[str, ...] | None
    unreadable: int = 0
    sop_classes: Mapping[str, str] = field(default_factory=dict)
    transfer_syntaxes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    repeated: int = 0
    doubt: str = ""


@dataclass(frozen=True)
class Named:
    """The studies that match a key, each once, in the source's order, and why there may be more."""

    studies: tuple[Wanted, ...]
    doubt: str = ""


def find_studies(finder: Finder, keys: Mapping[str, str], *, busy: bool = True, knowledge: Knowledge | None = None) -> Named:
    """Return the studies that match `keys`; `busy` and `knowledge` are as in `list_study`.

    Raises:
        DimseFailed: the source refuses the query.
        UsageError: a key is no keyword.

    """
    wanted = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
    # One study is never too much to be found.
    listing = list_all(
        StudyLister(keys, (knowledge or Knowledge()).at("STUDY"), wanted), finder, busy=busy and "StudyInstanceUID" not in keys
    )
    found: dict[str, Wanted] = {}
    for uid, match in listing.found.items():
        named = uid if is_uid(uid) else ""
        found.setdefault(named, Wanted(named, count_of(match, "NumberOfStudyRelatedInstances")))
    return Named(tuple(found.values()), listing.doubt)


def list_study(
    finder: Finder,
    wanted: Wanted,
    *,
    busy: bool = False,
    encodings: bool = False,
    before: Expectation | None = None,
    knowledge: Knowledge | None = None,
) -> Expectation:
    """Return what the source lists of what is wanted; a level that it refuses is replaced by the counts of the level above.

    With `busy` a level refused for being out of resources is taken for one that is refused for good. With `encodings` the source is
    asked for SOP classes and transfer syntaxes too, for which some have to read each instance. A series in which it counts as many
    instances as it listed `before` is not listed once more. `knowledge` is what is known of the source's limits: where it lists
    fewer than it counts, or cuts its answers short, it is asked further (`gateway.archives.lister`), and what stays open is the
    expectation's `doubt`.

    Raises:
        DimseFailed: the source is out of resources for now (without `busy`), or does not list the levels by which a part of
            the study is asked for.
        AssociationError: the association broke.

    """
    study, knowledge = wanted.study_instance_uid, knowledge or Knowledge()
    try:
        listed = _find_series(finder, wanted, busy, before, knowledge)
    except DimseFailed as error:
        if wanted.partial or (is_busy(error) and not busy):
            raise
        return expectation_of(wanted, None)
    if not listed.found and listed.doubt and not wanted.partial:
        return expectation_of(wanted, None)
    found = {uid if is_uid(uid) else "": count_of(match, "NumberOfSeriesRelatedInstances") for uid, match in listed.found.items()}
    series = {uid: count for uid, count in found.items() if wanted.series is None or uid in wanted.series}
    known = {} if before is None else before.by_series
    keywords = ("SOPInstanceUID", *(ENCODINGS if encodings else ()))
    listings = [
        SeriesListing(uid, count, known[uid])
        if uid in known and count == len(known[uid])
        else _list_series(finder, study, uid, count, keywords=keywords, busy=busy, known=known.get(uid, ()), knowledge=knowledge)
        for uid, count in series.items()
    ]
    if wanted.instances is not None:
        listings = [_only(one, wanted.instances) for one in _asked_by_uid(finder, wanted, listings, busy, knowledge)]
    part = replace(wanted, instance_count=None if listings else 0) if wanted.partial else wanted
    classes = {uid: sop_class for one in listings for uid, sop_class in one.sop_classes.items()}
    syntaxes = {uid: some for one in listings for uid, some in one.transfer_syntaxes.items()}
    expectation = expectation_of(part, listings)
    doubts = dict.fromkeys(("" if wanted.partial else listed.doubt, *(one.doubt for one in listings)))
    return replace(
        expectation,
        whole_study=not wanted.partial,
        whole_series=wanted.instances is None,
        sop_classes=classes,
        transfer_syntaxes=syntaxes,
        doubt="; ".join(filter(None, doubts)),
    )


def _asked_by_uid(
    finder: Finder, wanted: Wanted, listings: Sequence[SeriesListing], busy: bool, knowledge: Knowledge
) -> list[SeriesListing]:
    """Ask for the instances that are wanted and not listed by their UIDs, in each series, and add those that are there."""
    missing = set(wanted.instances or ()).difference(*(one.uids or () for one in listings))
    found = []
    for one in listings:
        if missing and one.uids is not None:
            known = next(iter(one.uids), "")
            study, series = wanted.study_instance_uid, one.series_instance_uid
            lister = PresenceLister(study, series, knowledge.at("IMAGE"), named=sorted(missing), known=known)
            there = missing.intersection(list_all(lister, finder, busy=busy).found)
            missing -= there
            found.append(replace(one, uids=(*one.uids, *sorted(there))))
        else:
            found.append(one)
    return found


def _only(listing: SeriesListing, instances: Collection[str]) -> SeriesListing:
    """Narrow what was listed of a series; of one whose instances were not, nothing is known."""
    if listing.uids is None:
        return replace(listing, count=None)
    uids = tuple(uid for uid in listing.uids if uid in instances)
    return replace(listing, count=len(uids), uids=uids, unreadable=0, repeated=0, doubt="")


def is_busy(error: DimseFailed) -> bool:
    """Tell whether a query was refused only for now (A700: out of resources, PS3.4 §C.4.1.1.4)."""
    return find_kind(error.status) is StatusKind.OUT_OF_RESOURCES


def _find_series(finder: Finder, wanted: Wanted, busy: bool, before: Expectation | None, knowledge: Knowledge) -> Listing:
    lister = SeriesLister(
        wanted.study_instance_uid,
        knowledge.at("SERIES"),
        instances=wanted.instance_count,
        known=() if before is None else before.series,
        named=wanted.series or (),
    )
    return list_all(lister, finder, busy=busy)


def _list_series(
    finder: Finder,
    study: str,
    series: str,
    count: int | None,
    *,
    keywords: Sequence[str],
    busy: bool,
    known: Collection[str],
    knowledge: Knowledge,
) -> SeriesListing:
    if not series:
        return SeriesListing("", count, None)
    lister = InstanceLister(study, series, knowledge.at("IMAGE"), counted=count, wanted=keywords[1:], known=known)
    try:
        listing = list_all(lister, finder, busy=busy)
    except DimseFailed as error:
        if is_busy(error) and not busy:
            raise
        return SeriesListing(series, count, None)
    classes = {uid: match.get(ENCODINGS[0], "") for uid, match in listing.found.items()}
    told = {uid: frozenset(filter(is_uid, match.get(ENCODINGS[1], "").split("\\"))) for uid, match in listing.found.items()}
    good = tuple(uid for uid in classes if is_uid(uid))
    return SeriesListing(
        series,
        count,
        good,
        len(classes) - len(good),
        {uid: classes[uid] for uid in good if is_sop_class(classes[uid])},
        {uid: told[uid] for uid in good if told[uid]},
        listing.repeated,
        listing.doubt if classes else "",
    )


def expectation_of(wanted: Wanted, series: Sequence[SeriesListing] | None) -> Expectation:
    """Return what follows from a study's listings: the UIDs where the source lists them all, else its counts.

    A series that lists nothing was not answered, unless the source counts none in it; so is a study that lists no series.
    An instance listed under something that is no UID cannot be compared. `series` is None where the source refused SERIES level.
    """
    listings = series or ()
    listed = {uid: one.series_instance_uid for one in listings for uid in one.uids or ()}
    names = tuple(one.series_instance_uid for one in listings if one.series_instance_uid)
    unanswered = any(one.uids is None or one.unreadable or (not one.uids and one.count != 0) for one in listings)
    counted = wanted.instance_count
    silent = not listed and (series is None or (counted or 0) > 0 or (not series and counted is None))
    if not unanswered and not silent:
        counted = _total(wanted, listings)
        return Expectation(Basis.UIDS, len(listed), listed, names, _odd(wanted.instance_count, len(listed)), counted=counted)
    return Expectation(Basis.COUNTS, _counted(wanted, listings), listed, names, (_why_counts(series),))


def _why_counts(series: Sequence[SeriesListing] | None) -> str:
    unreadable = sum(one.unreadable or not one.series_instance_uid for one in series or ())
    if unreadable:
        return f"the source lists {unreadable} series or instances under something that is no UID: judged by its counts"
    level = "SERIES" if series is None else "IMAGE"
    return f"the source does not answer C-FIND at {level} level: judged by its counts"


def _counted(wanted: Wanted, listings: Sequence[SeriesListing]) -> int | None:
    """Return the larger of the study's count and its series' sum; None where nothing tells how many a series has."""
    counts = [len(one.uids or ()) + one.unreadable or one.count for one in listings]
    known = sum(count for count in counts if count is not None)
    if wanted.instance_count is not None:
        return max(wanted.instance_count, known)
    return known if counts and None not in counts else None


def _total(wanted: Wanted, listings: Sequence[SeriesListing]) -> int | None:
    """Return how many instances the source counts, by the study or by its series, whichever is more; None where it does not.

    Instances that it lists twice under one UID, it counts twice.
    """
    repeated = sum(one.repeated for one in listings)
    known = [max(one.count or 0, len(one.uids or ()) + one.repeated) for one in listings]
    counts = [wanted.instance_count, sum(known) if any(one.count is not None for one in listings) else None]
    return max((count - repeated for count in counts if count is not None), default=None)


def _odd(counted: int | None, listed: int) -> tuple[str, ...]:
    if counted is None or counted >= listed:
        return ()
    return (f"the source counts {instances(counted)} and lists {listed} UIDs",)
