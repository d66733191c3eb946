"""Listing the series of a study and the instances of a series, at an archive that cuts its answers short. Pure.

Beside the queries of `narrowing`, series are asked for by modality, and by the first instances of all of them at IMAGE level.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from gateway.archives.lister.evidence import Answer, Evidence, Level, Query
from gateway.archives.lister.narrowing import NarrowingLister, Steps, number_in

_COUNT = "NumberOfSeriesRelatedInstances"
_OF_STUDY = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_MODALITIES = (
    *("CT", "MR", "CR", "DX", "US", "XA", "RF", "NM", "PT", "MG", "SR", "PR", "KO", "SC", "OT", "SEG", "DOC"),
    *("RTSTRUCT", "RTPLAN", "RTDOSE", "RTIMAGE", "ES", "IO", "PX", "ECG", "OP", "SM"),
)


class InstanceLister(NarrowingLister):
    """A `Lister` of the instances of a series.

    `counted` is how many the archive counts in it, None where it does not say. `known` are UIDs that it listed before, all that
    could be found; `named` are some that it should have. Those of either that it does not list are asked for by their UID.
    """

    level: Level = "IMAGE"

    def __init__(
        self,
        study: str,
        series: str,
        evidence: Evidence,
        *,
        counted: int | None = None,
        wanted: Sequence[str] = (),
        known: Collection[str] = (),
        named: Collection[str] = (),
    ) -> None:
        self._count = counted
        super().__init__({"StudyInstanceUID": study, "SeriesInstanceUID": series}, evidence, wanted, named, known)

    def _counted(self) -> int | None:
        return self._count

    def _all_there(self) -> bool | None:
        return None if self._count is None else len(self._found) + self._repeated >= self._count


class PresenceLister(InstanceLister):
    """A `Lister` of those of `named` that an archive has, each asked for by its UID; `known` is one that it lists already."""

    def __init__(self, study: str, series: str, evidence: Evidence, *, named: Collection[str], known: str = "") -> None:
        self._one_known = known
        super().__init__(study, series, evidence, named=named)

    @property
    def begun(self) -> bool:
        """Always: that a query by UID is refused means no more than that it is not answered."""
        return True

    def _walk(self) -> Steps:
        yield from self._by_uid(list(self._named), self._one_known)
        return True


class SeriesLister(NarrowingLister):
    """A `Lister` of the series of a study.

    `instances` and `series` are how many the archive counts in it, None where it does not say. `known` and `named` are as above.
    """

    level: Level = "SERIES"

    def __init__(
        self,
        study: str,
        evidence: Evidence,
        *,
        instances: int | None = None,
        series: int | None = None,
        wanted: Sequence[str] = (),
        known: Collection[str] = (),
        named: Collection[str] = (),
    ) -> None:
        self._instances = instances
        self._series = series
        super().__init__({"StudyInstanceUID": study}, evidence, (_COUNT, "SeriesNumber", "Modality", *wanted), named, known)

    def _counted(self) -> int | None:
        return self._series if self._by_series() else self._instances

    def _listed(self) -> int:
        return len(self._found) if self._by_series() else sum(one or 0 for one in self._counts())

    def _by_series(self) -> bool:
        """Tell whether series are compared rather than instances."""
        return self._instances is None or None in self._counts()

    def _counts(self) -> list[int | None]:
        return [number_in(match.get(_COUNT, "")) for match in self._found.values()]

    def _all_there(self) -> bool | None:
        if not self._by_series():
            return self._listed() >= (self._instances or 0)
        return None if self._series is None else len(self._found) >= self._series

    def _probe(self, whole: Answer) -> Steps:
        """Ask what the archive counts in the study; where it does not say, for a few numbers."""
        answer = yield Query("STUDY", self._keys, _OF_STUDY)
        for match in answer.matches[:1]:
            self._series, self._instances = (number_in(match.get(keyword, "")) for keyword in _OF_STUDY)
        if self._all_there() is None:
            return (yield from super()._probe(whole))
        return True

    def _further(self) -> Sequence[Callable[[Answer], Steps]]:
        return (self._by_first_instances, self._by_modality)

    def _by_first_instances(self, whole: Answer) -> Steps:
        """Ask at IMAGE level for the first instance of every series: a relational query, which not every archive answers."""
        for number in ("1", "0", "2"):
            keys = {**self._keys, "InstanceNumber": number}
            answer = yield Query("IMAGE", keys, ("SOPInstanceUID", "SeriesInstanceUID"))
            if answer.refused:
                return False
            others = {match.get("SeriesInstanceUID", "") for match in answer.matches} - self._found.keys() - {""}
            for series in sorted(others):
                if self._all_there() or self._spent():
                    return False
                yield self._ask({self._unique: series})
        return False

    def _by_modality(self, whole: Answer) -> Steps:
        """Ask for the series of each modality."""
        seen = [match.get("Modality", "") for match in self._found.values()]
        for modality in dict.fromkeys((*filter(None, seen), *_MODALITIES)):
            if self._all_there() or self._spent():
                return False
            answer = yield self._ask({"Modality": modality})
            if answer.refused or any(match.get("Modality", modality) != modality for match in answer.matches):
                return False
        return False
