"""A place that is asked by C-FIND (PS3.4 §C.4.1): study by study, series by series, never relationally."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from gateway.archives.lister import (
    Answer,
    InstanceLister,
    Knowledge,
    Lister,
    Listing,
    Match,
    PresenceLister,
    Query,
    SeriesLister,
    StudyLister,
    ask_by,
    count_of,
    list_all,
)
from gateway.archives.places.c_get import Into, NoGet, get
from gateway.archives.places.matching import value_matches
from gateway.archives.places.place import SeriesHeld, StudyHeld, Unheld
from gateway.association.dimse.services import StorageService
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.pool import AssociationPool
from gateway.association.scu.presence import FIND_CONTEXT
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.core.domain import is_uid
from gateway.core.errors import AssociationAborted, GatewayError

T = TypeVar("T")


class Capture(Protocol):
    """Has a source send single instances by C-MOVE. Blocking; called on threads of trio's."""

    def __call__(self, uids: tuple[str, str, str], storage: StorageService) -> str:
        """Have one sent, by its Study, Series and SOP Instance UIDs, to `storage` and nowhere else; return why it did not come."""

    def close(self) -> None:
        """Give up what is asked for; from any thread."""


_STUDY_KEYS = ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_SERIES_KEYS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")

MAX_COUNTS = 100_000
"""Counts of studies and series that are kept, to be compared with what is listed of them; beyond that they are forgotten."""


class DicomPlace:
    """A `Place` behind a Query/Retrieve SCP. Keeps the associations that are not in use, for the next question."""

    gives_files = True

    def __init__(
        self,
        name: str,
        remote: RemoteAE,
        calling_ae: str,
        *,
        deadlines: Deadlines,
        capture: Capture | None = None,
        knowledge: Knowledge | None = None,
        keep: Callable[[Knowledge], None] = lambda _knowledge: None,
    ) -> None:
        """`capture` has instances sent by C-MOVE, for a place that has no C-GET; without it, such a one gives no files.

        `knowledge` is what is known of how many matches it gives to a query; `keep` is called with it in the end.
        """
        self.name = name
        self._capture = capture
        self._gets = True
        self._calling_ae = calling_ae
        self._associate = partial(associate, remote, calling_ae, deadlines=deadlines)
        self._associations = AssociationPool(partial(self._associate, (FIND_CONTEXT,)))
        self._switch = KillSwitch()
        self._knowledge = knowledge or Knowledge()
        self._keep = keep
        self._counts: dict[str, tuple[int | None, int | None]] = {}
        self._series_counts: dict[tuple[str, str], int | None] = {}
        self._doubts: dict[str, None] = {}

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`; an archive that cuts its answers short is asked in parts."""
        listing = self._list(lambda: StudyLister(keys, self._knowledge.at("STUDY"), _STUDY_KEYS))
        modality = keys.get("ModalitiesInStudy", keys.get("Modality", ""))
        found = (_study(match, keys) for match in listing.found.values())
        studies = {study.study_instance_uid: study for study in found if study is not None and self._is_of(study, modality)}
        if len(self._counts) > MAX_COUNTS:
            self._counts.clear()
        self._counts.update({uid: (study.series, study.instances) for uid, study in studies.items()})
        return studies

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`; where it lists fewer than it counts, it is asked further."""
        series, instances = self._counts.get(study, (None, None))
        listing = self._list(
            lambda: SeriesLister(study, self._knowledge.at("SERIES"), series=series, instances=instances, wanted=_SERIES_KEYS)
        )
        found = {uid: _series(match) for uid, match in listing.found.items() if is_uid(uid)}
        if len(self._series_counts) > MAX_COUNTS:
            self._series_counts.clear()
        self._series_counts.update({(study, uid): one.instances for uid, one in found.items()})
        return found

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`; where it lists fewer than it counts, it is asked further."""
        counted = self._series_counts.get((study, series))
        listing = self._list(lambda: InstanceLister(study, series, self._knowledge.at("IMAGE"), counted=counted))
        return {uid for uid in listing.found if is_uid(uid)}

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        """As `Place.holds`."""
        known = next(iter(listed), "")
        evidence = self._knowledge.at("IMAGE")
        listing = self._list(lambda: PresenceLister(study, series, evidence, named=sorted(instances), known=known))
        return set(instances) & listing.found.keys()

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`, by C-GET, else by C-MOVE. Some archives abort the association where C-GET is not allowed."""
        failure: GatewayError = NoGet("it gives no instances by C-GET")
        if self._gets:
            sop_class = self._ask(lambda requestor: _sop_class(requestor, study, series, instance))
            if sop_class is None:
                raise Unheld(f"{self.name} does not list it")
            try:
                with self._switch.on_this_thread():
                    get(self._associate, self._calling_ae, (study, series, instance), sop_class, to)
            except (Unheld, AssociationAborted) as error:
                if self._capture is None:
                    raise
                failure = error
            else:
                return
        assert self._capture is not None
        into = Into(to)
        why = self._capture((study, series, instance), into)
        if not into.came:
            raise Unheld(f"{failure}; by C-MOVE: {why}")
        self._gets = not isinstance(failure, NoGet | AssociationAborted)

    def remarks(self) -> tuple[str, ...]:
        """As `Place.remarks`."""
        cap = self._knowledge.at("STUDY").cap
        return () if cap is None else (f"{self.name} gives no more than {cap} studies at a time: it was asked in parts",)

    def doubts(self) -> tuple[str, ...]:
        """As `Place.doubts`."""
        return tuple(f"{self.name} may have more than it lists: {doubt}" for doubt in self._doubts)

    def close(self) -> None:
        """As `Place.close`."""
        self._switch.kill()
        for requestor in self._associations.taken_out():
            requestor.release()
        if self._capture is not None:
            self._capture.close()
        self._keep(self._knowledge)

    def _list(self, lister: Callable[[], Lister]) -> Listing:
        """List on an association; one that turns out to have ended costs a second try from the start."""
        listing = self._ask(lambda requestor: list_all(lister(), requestor))
        if listing.doubt:
            self._doubts[listing.doubt] = None
        return listing

    def _is_of(self, study: StudyHeld, modality: str) -> bool:
        """Tell whether a study matches a modality: not every archive matches by it, nor says of which a study is."""
        if not modality:
            return True
        known = study.modalities or {one.modality for one in self.series(study.study_instance_uid).values()}
        return value_matches("ModalitiesInStudy", "\\".join(known), modality)

    def _ask(self, question: Callable[[Requestor], T]) -> T:
        """Ask on an association that is open already, or on a new one where there is none or it turns out to have ended."""
        with self._switch.on_this_thread():
            return self._associations.ask(question, again_after=AssociationAborted)


def _study(match: Match, keys: Mapping[str, str]) -> StudyHeld | None:
    """Return the study of a match; None where its UID is none, or it is not what was asked for."""
    uid, date = match.get("StudyInstanceUID", ""), match.get("StudyDate", "")
    if not is_uid(uid) or (date and not value_matches("StudyDate", date, keys.get("StudyDate", ""))):
        return None
    modalities = tuple(part for part in match.get("ModalitiesInStudy", "").split("\\") if part)
    counts = count_of(match, "NumberOfStudyRelatedSeries"), count_of(match, "NumberOfStudyRelatedInstances")
    return StudyHeld(uid, *counts, date, match.get("StudyTime", ""), modalities)


def _series(match: Match) -> SeriesHeld:
    count = count_of(match, "NumberOfSeriesRelatedInstances")
    return SeriesHeld(match["SeriesInstanceUID"], count, match.get("Modality", ""), match.get("SeriesDescription", ""))


def _sop_class(requestor: Requestor, study: str, series: str, instance: str) -> str | None:
    """Return the SOP class of an instance, empty where the place does not say; None where it does not list the instance."""
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance}
    answer: Answer = ask_by(requestor)(Query("IMAGE", keys, ("SOPClassUID",)))
    return answer.matches[0].get("SOPClassUID", "") if answer.matches else None
