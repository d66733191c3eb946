"""What a source has, asked by C-FIND: studies by key, then series of a study, then instances series by series (PS3.4 §C.4.1).

IMAGE level is always asked with a Series Instance UID: without it the query is relational, which a source need not
support. The functions that take a `Finder` block on the association; the others are pure. Answers are input from a
stranger: UIDs are checked, and matches that contradict the key are passed over, since some sources ignore keys that they
do not know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset

from gateway.association.query import Finder, bounded, contradicts, count_of, identifier, text
from gateway.association.statuses import StatusKind, find_meaning
from gateway.domain import Basis, is_sop_class, is_uid
from gateway.errors import DimseFailed
from gateway.retrieve.repair import Level, Target
from gateway.retrieve.tally import Expectation, instances
from gateway.retrieve.wanted import Wanted


@dataclass(frozen=True)
class SeriesListing:
    """A series that a source lists: its count where it gave one, and the instances it lists, None where it did not answer.

    `series_instance_uid` is empty for one that is listed under something that is no UID; `unreadable` is the number of
    instances that are. `sop_classes` has the SOP classes of those instances of which the source tells it.
    """

    series_instance_uid: str
    count: int | None
    uids: tuple[str, ...] | None
    unreadable: int = 0
    sop_classes: Mapping[str, str] = field(default_factory=dict)


def move_identifier(target: Target) -> Dataset:
    """Return the C-MOVE or C-GET identifier of `target`: one unique key a level (PS3.4 §C.4.2.2.1, §C.4.3.2.1)."""
    dataset = Dataset()
    dataset.QueryRetrieveLevel = str(target.level)
    dataset.StudyInstanceUID = target.study
    if target.level is not Level.STUDY:
        dataset.SeriesInstanceUID = target.series
    if target.level is Level.IMAGE:
        dataset.SOPInstanceUID = list(target.uids) if len(target.uids) > 1 else target.uids[0]
    return dataset


def find_studies(finder: Finder, keys: Mapping[str, str]) -> tuple[Wanted, ...]:
    """Return the studies that match `keys`, each once, in the source's order.

    Raises:
        DimseFailed: the source refuses the query.
        UsageError: a key is no keyword.

    """
    wanted = ("StudyInstanceUID", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
    found: dict[str, Wanted] = {}
    for answer in bounded(finder.find(identifier("STUDY", keys, wanted))):
        uid = text(answer, "StudyInstanceUID")
        if uid and not contradicts(answer, keys):
            named = uid if is_uid(uid) else ""
            found.setdefault(named, Wanted(named, count_of(answer, "NumberOfStudyRelatedInstances")))
    return tuple(found.values())


def list_study(
    finder: Finder, wanted: Wanted, *, busy: bool = False, sop_classes: bool = False, before: Expectation | None = None
) -> Expectation:
    """Return what the source lists of what is wanted; a level that it refuses is replaced by the counts of the level above.

    With `busy` a level refused for being out of resources is taken for one that is refused for good. With `sop_classes` the
    source is asked for those too, for which some have to read each instance. A series in which it counts as many instances as it
    listed `before` is not listed once more.

    Raises:
        DimseFailed: the source is out of resources for now (without `busy`), or does not list the levels by which a part of
            the study is asked for.
        AssociationError: the association broke.

    """
    study = wanted.study_instance_uid
    try:
        found = _find_series(finder, study)
    except DimseFailed as error:
        if wanted.partial or (is_busy(error) and not busy):
            raise
        return expectation_of(wanted, None)
    series = {uid: count for uid, count in found.items() if wanted.series is None or uid in wanted.series}
    known = {} if before is None else before.by_series
    keywords = ("SOPInstanceUID", "SOPClassUID") if sop_classes else ("SOPInstanceUID",)
    listings = [
        SeriesListing(uid, count, known[uid])
        if uid in known and count == len(known[uid])
        else _list_series(finder, {"StudyInstanceUID": study, "SeriesInstanceUID": uid}, count, keywords, busy)
        for uid, count in series.items()
    ]
    if wanted.instances is not None:
        listings = [_only(one, wanted.instances) for one in listings]
    part = replace(wanted, instance_count=None if listings else 0) if wanted.partial else wanted
    classes = {uid: sop_class for one in listings for uid, sop_class in one.sop_classes.items()}
    expectation = expectation_of(part, listings)
    return replace(expectation, whole_study=not wanted.partial, whole_series=wanted.instances is None, sop_classes=classes)


def _only(listing: SeriesListing, instances: Collection[str]) -> SeriesListing:
    """Narrow what was listed of a series; of one whose instances were not, nothing is known."""
    if listing.uids is None:
        return replace(listing, count=None)
    uids = tuple(uid for uid in listing.uids if uid in instances)
    return SeriesListing(listing.series_instance_uid, len(uids), uids, sop_classes=listing.sop_classes)


def is_busy(error: DimseFailed) -> bool:
    """Tell whether a query was refused only for now (A700: out of resources, PS3.4 §C.4.1.1.4)."""
    return find_meaning(error.status).kind is StatusKind.OUT_OF_RESOURCES


def _find_series(finder: Finder, study: str) -> dict[str, int | None]:
    keys = {"StudyInstanceUID": study}
    found: dict[str, int | None] = {}
    for answer in bounded(finder.find(identifier("SERIES", keys, ("SeriesInstanceUID", "NumberOfSeriesRelatedInstances")))):
        uid = text(answer, "SeriesInstanceUID")
        if uid and not contradicts(answer, keys):
            found.setdefault(uid if is_uid(uid) else "", count_of(answer, "NumberOfSeriesRelatedInstances"))
    return found


def _list_series(finder: Finder, keys: Mapping[str, str], count: int | None, keywords: Sequence[str], busy: bool) -> SeriesListing:
    if not (series := keys["SeriesInstanceUID"]):
        return SeriesListing("", count, None)
    try:
        answers = bounded(finder.find(identifier("IMAGE", keys, keywords)))
        classes = {text(one, "SOPInstanceUID"): text(one, "SOPClassUID") for one in answers if not contradicts(one, keys)}
    except DimseFailed as error:
        if is_busy(error) and not busy:
            raise
        return SeriesListing(series, count, None)
    classes.pop("", None)
    good = tuple(uid for uid in classes if is_uid(uid))
    known = {uid: classes[uid] for uid in good if is_sop_class(classes[uid])}
    return SeriesListing(series, count, good, len(classes) - len(good), known)


def expectation_of(wanted: Wanted, series: Sequence[SeriesListing] | None) -> Expectation:
    """Return what follows from a study's listings: the UIDs where the source lists them all, else its counts.

    A series that lists nothing was not answered, unless the source counts none in it; so is a study that lists no series.
    What is listed under something that is no UID cannot be compared. `series` is None where the source refused SERIES level.
    """
    listings = series or ()
    listed = {uid: one.series_instance_uid for one in listings for uid in one.uids or ()}
    names = tuple(one.series_instance_uid for one in listings if one.series_instance_uid)
    unanswered = any(one.uids is None or one.unreadable or (not one.uids and one.count != 0) for one in listings)
    counted = wanted.instance_count
    silent = not listed and (series is None or (counted or 0) > 0 or (not series and counted is None))
    if not unanswered and not silent:
        return Expectation(Basis.UIDS, len(listed), listed, names, _disagreement(wanted, listings, len(listed)))
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


def _disagreement(wanted: Wanted, listings: Sequence[SeriesListing], listed: int) -> tuple[str, ...]:
    counts = [one.count for one in listings]
    counted = wanted.instance_count
    if counted is None and counts and None not in counts:
        counted = sum(count for count in counts if count is not None)
    if counted is None or counted == listed:
        return ()
    return (f"the source counts {instances(counted)} and lists {listed} UIDs",)
