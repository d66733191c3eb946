"""A place that is an Orthanc, asked by its REST API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from gateway.archives.orthanc import Orthanc, Resource
from gateway.archives.places.matching import matches
from gateway.archives.places.place import Complete, SeriesHeld, StudyHeld, Unheld
from gateway.config.settings import RestTable
from gateway.core.errors import UsageError
from gateway.core.files import create_private

_SEARCHED = frozenset({"StudyInstanceUID", "StudyDate", "PatientID", "AccessionNumber", "StudyDescription", "PatientName"})
"""The keys that Orthanc's own database searches by: others are matched here, since it would match them after it cut the answer."""


class RestPlace(Complete):
    """A `Place` behind Orthanc's REST API."""

    gives_files = True

    def __init__(self, name: str, table: RestTable) -> None:
        self.name = name
        self._orthanc = Orthanc(table)

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`."""
        query = {key: value for key, value in keys.items() if key in _SEARCHED and value.isascii()}
        found: dict[str, StudyHeld] = {}
        for study in self._orthanc.studies(query):
            uid = study.uid("Study")
            if uid and self._matches(study, keys):
                held = self._held(uid, study)
                found[uid] = _both(found[uid], held) if uid in found else held
        return found

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`; a study under several patient ids is one."""
        found: dict[str, SeriesHeld] = {}
        for one in self._orthanc.lookup("Study", study):
            for series in self._orthanc.series_of(one):
                if uid := series.uid("Series"):
                    count = len(series.children) + ((found[uid].instances or 0) if uid in found else 0)
                    found[uid] = SeriesHeld(uid, count, series.tags.get("Modality", ""), series.tags.get("SeriesDescription", ""))
        return found

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        listed = (each for one in self._orthanc.lookup("Series", series) for each in self._orthanc.instances_of(one))
        return {instance.uid("Instance") for instance in listed} - {""}

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        """As `Place.holds`."""
        return {uid for uid in instances if self._orthanc.lookup("Instance", uid)}

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`."""
        known = self._orthanc.lookup("Instance", instance)
        if not known:
            raise Unheld(f"{self.name} does not hold it")
        with create_private(to) as file:
            self._orthanc.fetch(known[0], file)

    def close(self) -> None:
        """As `Place.close`."""
        self._orthanc.close()

    def _matches(self, study: Resource, keys: Mapping[str, str]) -> bool:
        for key in keys:
            if key not in study.tags and key not in _SEARCHED and key not in {"Modality", "ModalitiesInStudy", "StudyTime"}:
                raise UsageError(f"{self.name} cannot be asked by {key}: Orthanc's REST API does not search by it")
        asked = {"ModalitiesInStudy" if key == "Modality" else key: value for key, value in keys.items()}
        wanted = asked.get("ModalitiesInStudy", "")
        values = {**study.tags}
        if wanted and "ModalitiesInStudy" not in values:
            values["ModalitiesInStudy"] = "\\".join(self._modalities(study))
        return matches(values, asked)

    def _modalities(self, study: Resource) -> list[str]:
        return sorted({series.tags.get("Modality", "") for series in self._orthanc.series_of(study.id)} - {""})

    def _held(self, uid: str, study: Resource) -> StudyHeld:
        counted = study.tags.get("NumberOfStudyRelatedInstances", "")
        count = int(counted) if counted.isdecimal() else self._orthanc.count_instances(study.id)
        modalities = tuple(part for part in study.tags.get("ModalitiesInStudy", "").split("\\") if part)
        date, time = study.tags.get("StudyDate", ""), study.tags.get("StudyTime", "")
        return StudyHeld(uid, len(study.children), count, date, time, modalities)


def _both(one: StudyHeld, other: StudyHeld) -> StudyHeld:
    """Add up what is held of one study under two patient ids."""
    counts = (one.series or 0) + (other.series or 0), (one.instances or 0) + (other.instances or 0)
    modalities = tuple(dict.fromkeys(one.modalities + other.modalities))
    return StudyHeld(one.study_instance_uid, *counts, one.study_date, one.study_time, modalities)
