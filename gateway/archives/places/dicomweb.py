"""A place that is a DICOMweb service, asked by QIDO-RS (PS3.18 §10.6)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from gateway.archives.dicomweb import DicomWeb, Match, place
from gateway.archives.places.matching import matches, value_matches
from gateway.archives.places.place import Complete, SeriesHeld, StudyHeld, Unheld
from gateway.config.settings import RestTable
from gateway.core.errors import WebServiceRefused
from gateway.core.files import create_private

_PLAIN = re.compile(r"[A-Za-z0-9._~*?,\\-]*")
"""Values that are searched by as they are: Orthanc's plugin does not decode others (``%5E``), so those are matched here."""

_STUDY_FIELDS = ("StudyDate", "StudyTime", "ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_SERIES_FIELDS = ("Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


class WebPlace(Complete):
    """A `Place` behind a DICOMweb service."""

    gives_files = True

    def __init__(self, name: str, table: RestTable) -> None:
        self.name = name
        self._web = DicomWeb(table)

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`."""
        wanted = {"ModalitiesInStudy" if key == "Modality" else key: value for key, value in keys.items() if value}
        asked = {key: value.replace("\\", ",") for key, value in wanted.items() if _PLAIN.fullmatch(value)}
        unasked = {key: value for key, value in wanted.items() if key not in asked}
        found: dict[str, StudyHeld] = {}
        for match in self._web.search("/studies", "StudyInstanceUID", asked, dict.fromkeys((*_STUDY_FIELDS, *unasked))):
            study = _study(match, wanted)
            if study is not None and matches({key: match.text(key) for key in unasked}, unasked):
                found.setdefault(study.study_instance_uid, study)
        return found

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`."""
        found: dict[str, SeriesHeld] = {}
        for match in self._web.search(f"{place(study)}/series", "SeriesInstanceUID", {}, _SERIES_FIELDS):
            if uid := match.uid("SeriesInstanceUID"):
                count = match.count("NumberOfSeriesRelatedInstances")
                found[uid] = SeriesHeld(uid, count, match.text("Modality"), match.text("SeriesDescription"))
        return found

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        path = f"{place(study, series)}/instances"
        return {match.uid("SOPInstanceUID") for match in self._web.search(path, "SOPInstanceUID", {})} - {""}

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        """As `Place.holds`."""
        path = f"/studies/{study}/series/{series}/instances"
        return {
            uid
            for uid in instances
            if any(
                match.uid("SOPInstanceUID") == uid for match in self._web.search(path, "SOPInstanceUID", {"SOPInstanceUID": uid})
            )
        }

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`."""
        try:
            with create_private(to) as file:
                self._web.fetch(study, series, instance, file)
        except WebServiceRefused as error:
            if error.status == 404:
                raise Unheld(f"{self.name} does not hold it") from error
            raise

    def close(self) -> None:
        """As `Place.close`."""
        self._web.close()


def _study(match: Match, keys: Mapping[str, str]) -> StudyHeld | None:
    """Return the study of a match; None where its UID is none, or it is not of the dates that were asked for."""
    uid, date = match.uid("StudyInstanceUID"), match.text("StudyDate")
    if not uid or (date and not value_matches("StudyDate", date, keys.get("StudyDate", ""))):
        return None
    modalities = tuple(part for part in match.text("ModalitiesInStudy").split("\\") if part)
    counts = match.count("NumberOfStudyRelatedSeries"), match.count("NumberOfStudyRelatedInstances")
    return StudyHeld(uid, *counts, date, match.text("StudyTime"), modalities)
