"""A client of Orthanc's REST API (1.10 and later). Blocking, thread-safe; errors are `WebServiceError`.

Orthanc has identifiers of its own: one for each study *and patient id*, so that one Study Instance UID may have several.
``LimitFindResults`` cuts ``/tools/find`` without a word: what may have been cut is found out by listing everything instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from gateway.archives.http import MAX_PAGED, Service, clean, document
from gateway.config.settings import RestTable
from gateway.core.domain import is_uid
from gateway.core.errors import WebServiceError, WebServiceRefused

Level = Literal["Study", "Series", "Instance"]

PAGE = 500
"""Resources asked for at a time."""

_PLACES: Mapping[Level, str] = {"Study": "/studies", "Series": "/series", "Instance": "/instances"}
_UNIQUE: Mapping[Level, str] = {"Study": "StudyInstanceUID", "Series": "SeriesInstanceUID", "Instance": "SOPInstanceUID"}
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
"""The form of its identifiers, which become parts of paths: 40 hexadecimal digits and dashes."""

_COUNTS = ("NumberOfStudyRelatedInstances", "ModalitiesInStudy")
"""Asked for beside the main tags; only 1.11 and later answer."""


@dataclass(frozen=True)
class Statistics:
    """The fill of an Orthanc; sizes in bytes."""

    disk_bytes: int
    studies: int
    series: int
    instances: int


@dataclass(frozen=True)
class Resource:
    """A study, series or instance: Orthanc's identifier, its main tags by keyword, and its children's identifiers."""

    id: str
    tags: Mapping[str, str]
    children: tuple[str, ...] = ()

    def uid(self, level: Level) -> str:
        """Return its UID, which is empty where Orthanc shows none that is one."""
        value = self.tags.get(_UNIQUE[level], "").strip("\0 ")
        return value if is_uid(value) else ""


class Orthanc:
    """One Orthanc. Every method raises WebServiceError where it cannot be asked or refuses."""

    def __init__(self, table: RestTable) -> None:
        self._service = Service(table)
        self.url = self._service.url

    def close(self) -> None:
        """End its connections."""
        self._service.close()

    def statistics(self) -> Statistics:
        """Return how much it holds."""
        found = self._get("/statistics")
        try:
            keys = ("TotalDiskSize", "CountStudies", "CountSeries", "CountInstances")
            return Statistics(*(int(found[key]) for key in keys))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WebServiceError("no statistics as Orthanc has them", url=self.url) from error

    def transcodes_for(self, ae_title: str) -> tuple[str, ...]:
        """Return the names of the modalities with `ae_title` to which it may transcode what it sends."""
        found = self._get("/modalities", {"expand": ""})
        entries = found.items() if isinstance(found, dict) else ()
        ours = [(name, one) for name, one in entries if isinstance(one, dict) and one.get("AET") == ae_title]
        return tuple(sorted(str(name) for name, one in ours if one.get("AllowTranscoding", False)))

    def transcodes_mixed(self) -> bool:
        """Tell whether its version is one that transcodes what it sends of a study in several transfer syntaxes: 1.12 or later."""
        found = self._get("/system")
        version = str(found.get("Version", "")) if isinstance(found, dict) else ""
        numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
        return len(numbers) < 2 or numbers >= [1, 12]

    def encodings(self, study: str) -> dict[str, tuple[str, str]]:
        """Return the SOP Class UID and the Transfer Syntax UID as which each instance of a Study Instance UID is stored."""
        found: dict[str, tuple[str, str]] = {}
        for identifier in self.lookup("Study", study):
            asked = {"Resources": [identifier], "Level": "Instance", "Metadata": True}
            answer = document(self._service.post("/tools/bulk-content", asked), self.url)
            # No more than hints: what is no instance as Orthanc has them says nothing, and costs the others nothing.
            for one in answer if isinstance(answer, list) else ():
                described = one if isinstance(one, dict) else {}
                uid = Resource("", _texts(described.get("MainDicomTags"))).uid("Instance")
                metadata = _texts(described.get("Metadata"))
                told = metadata.get("SopClassUid", ""), metadata.get("TransferSyntax", "")
                if uid and any(told):
                    found[uid] = told
        return found

    def lookup(self, level: Level, uid: str) -> tuple[str, ...]:
        """Return the identifiers of what it holds under the UID `uid`: none, one, or one for each patient id."""
        found = document(self._service.post("/tools/lookup", uid), self.url)
        return tuple(self._id(one) for one in self._objects(found) if one.get("Type") == level)

    def studies(self, query: Mapping[str, str]) -> Iterator[Resource]:
        """Yield the studies that match `query` (StudyDate, StudyInstanceUID, PatientID, AccessionNumber …), or more than those.

        More, where it cuts its answers short: then they are all its studies.
        """
        found = list(self._find(query))
        yield from self._all() if self._may_be_cut(len(found), query) else found

    def series_of(self, study: str) -> list[Resource]:
        """Return the series of a study, by its identifier; none where it is gone meanwhile."""
        return self._children(f"/studies/{study}/series", "Instances")

    def instances_of(self, series: str) -> list[Resource]:
        """Return the instances of a series, by its identifier; none where it is gone meanwhile."""
        return self._children(f"/series/{series}/instances", "")

    def count_instances(self, study: str) -> int | None:
        """Return how many instances a study has, None where it is gone meanwhile."""
        try:
            return int(self._get(f"/studies/{study}/statistics")["CountInstances"])
        except WebServiceRefused as error:
            if error.status == 404:
                return None
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WebServiceError("no statistics as Orthanc has them", url=self.url) from error

    def fetch(self, instance: str, file: BinaryIO) -> None:
        """Write the Part 10 file of an instance, by its identifier, into `file`."""
        self._service.fetch(f"/instances/{instance}/file", file)

    def delete(self, level: Level, identifier: str) -> bool:
        """Delete a study, series or instance by its identifier; False where it is not there."""
        try:
            self._service.delete(f"{_PLACES[level]}/{identifier}")
        except WebServiceRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    def _find(self, query: Mapping[str, str]) -> Iterator[Resource]:
        since = 0
        while True:
            asked = {
                "Level": "Study",
                "Query": dict(query),
                "Expand": True,
                "RequestedTags": list(_COUNTS),
                "Since": since,
                "Limit": PAGE,
            }
            page = self._objects(document(self._service.post("/tools/find", asked), self.url))
            yield from (self._resource(one, "Series") for one in page)
            since = self._further(since, len(page))
            if len(page) < PAGE:
                return

    def _may_be_cut(self, found: int, query: Mapping[str, str]) -> bool:
        """Tell whether `found` results are as many as it ever gives: it holds more, and gives no more when asked for one more."""
        if not found or self.statistics().studies <= found:
            return False
        if not query:
            return True
        one_more = {"Level": "Study", "Query": {}, "Expand": False, "Since": found, "Limit": 1}
        return not document(self._service.post("/tools/find", one_more), self.url)

    def _all(self) -> Iterator[Resource]:
        since = 0
        while True:
            page = self._objects(self._get("/studies", {"expand": "", "since": str(since), "limit": str(PAGE)}))
            yield from (self._resource(one, "Series") for one in page)
            since = self._further(since, len(page))
            if len(page) < PAGE:
                return

    def _children(self, path: str, children: str) -> list[Resource]:
        try:
            return [self._resource(one, children) for one in self._objects(self._get(path))]
        except WebServiceRefused as error:
            if error.status == 404:
                return []
            raise

    def _get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        return document(self._service.get(path, parameters), self.url)

    def _further(self, since: int, count: int) -> int:
        if since + count > MAX_PAGED:
            raise WebServiceError(f"lists more than {MAX_PAGED} resources", url=self.url)
        return since + count

    def _objects(self, found: object) -> list[dict[str, Any]]:
        """Return the objects in a list; what is no such list says nothing of what is there."""
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise WebServiceError("no list of resources as Orthanc has them", url=self.url)
        return found

    def _resource(self, found: Mapping[str, Any], children: str) -> Resource:
        tags = {
            **_texts(found.get("PatientMainDicomTags")),
            **_texts(found.get("MainDicomTags")),
            **_texts(found.get("RequestedTags")),
        }
        below = found.get(children)
        return Resource(self._id(found), tags, tuple(map(str, below)) if isinstance(below, list) else ())

    def _id(self, found: Mapping[str, Any]) -> str:
        identifier = found.get("ID")
        if not isinstance(identifier, str) or _ID.fullmatch(identifier) is None:
            raise WebServiceError("a resource without an identifier as Orthanc has them", url=self.url)
        return identifier


def _texts(tags: object) -> dict[str, str]:
    return {key: text for key, value in tags.items() if (text := clean(value)) is not None} if isinstance(tags, dict) else {}
