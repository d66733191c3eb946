"""A place that is asked by C-FIND (PS3.4 §C.4.1): study by study, series by series, never relationally."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from pydicom.dataset import Dataset

from gateway.association.presence import FIND_CONTEXT, instances_of_series
from gateway.association.query import bounded, contradicts, count_of, identifier, text
from gateway.association.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.association.services import StorageService
from gateway.association.statuses import StatusKind, find_meaning
from gateway.domain import is_uid
from gateway.errors import AssociationAborted, DimseFailed, GatewayError
from gateway.holdings.exhaust import Answer, Limit, everything
from gateway.holdings.getting import Into, NoGet, get
from gateway.holdings.matching import value_matches
from gateway.holdings.place import SeriesHeld, StudyHeld, Unheld
from gateway.settings import DicomDestination, SourceTable
from gateway.tls import requestor_context

T = TypeVar("T")


class Capture(Protocol):
    """Has a source send single instances by C-MOVE. Blocking; called on threads of trio's."""

    def __call__(self, uids: tuple[str, str, str], storage: StorageService) -> str:
        """Have one sent, by its Study, Series and SOP Instance UIDs, to `storage` and nowhere else; return why it did not come."""

    def close(self) -> None:
        """Give up what is asked for; from any thread."""


_STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
_CUT = frozenset({StatusKind.CANCELLED, StatusKind.WARNING, StatusKind.OUT_OF_RESOURCES})
"""How archives end an answer that has not all matches in it: Orthanc by FE00, others by B001 or A700 (PS3.4 §C.4.1.1.4)."""

_SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances")


def remote_of(table: SourceTable | DicomDestination) -> RemoteAE:
    """Return the AE of a source or destination, which has a port.

    Raises:
        ConfigurationError: a certificate or key cannot be used.

    """
    assert table.port is not None
    secure = requestor_context(table.tls) if table.tls else None
    return RemoteAE(table.ae_title, table.host, table.port, secure, table.tls.server_name if table.tls else None)


class DicomPlace:
    """A `Place` behind a Query/Retrieve SCP. Keeps the associations that are not in use, for the next question."""

    gives_files = True

    def __init__(
        self, name: str, remote: RemoteAE, calling_ae: str, *, deadlines: Deadlines, capture: Capture | None = None
    ) -> None:
        """`capture` has instances sent by C-MOVE, for a place that has no C-GET; without it, such a one gives no files."""
        self.name = name
        self._capture = capture
        self._gets = True
        self._calling_ae = calling_ae
        self._associate = partial(associate, remote, calling_ae, deadlines=deadlines)
        self._connect = partial(self._associate, (FIND_CONTEXT,))
        self._lock = threading.Lock()
        self._idle: list[Requestor] = []
        self._busy: set[Requestor] = set()
        self._limit = Limit()

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`; an archive that cuts its answers short is asked in parts."""
        found = everything(self._studies, keys, self._limit)
        modality = keys.get("ModalitiesInStudy", keys.get("Modality", ""))
        return {uid: study for uid, study in found.items() if self._is_of(study, modality)}

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`."""
        return self._ask(lambda requestor: _series(requestor, study))

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        return self._ask(lambda requestor: {uid for uid in instances_of_series(requestor, study, series) if is_uid(uid)})

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`, by C-GET, else by C-MOVE. Some archives abort the association where C-GET is not allowed."""
        failure: GatewayError = NoGet("it gives no instances by C-GET")
        if self._gets:
            sop_class = self._ask(lambda requestor: _sop_class(requestor, study, series, instance))
            if sop_class is None:
                raise Unheld(f"{self.name} does not list it")
            try:
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
        said = []
        if self._limit.hit is not None:
            said.append(f"{self.name} gives no more than {self._limit.hit} studies at a time: it was asked in parts")
        if self._limit.doubtful:
            said.append(f"{self.name} may have more studies than it lists: an answer may have been cut short")
        return tuple(said)

    def close(self) -> None:
        """As `Place.close`."""
        with self._lock:
            idle, self._idle = self._idle, []
            for requestor in self._busy:
                requestor.kill()
        for requestor in idle:
            requestor.release()
        if self._capture is not None:
            self._capture.close()

    def _studies(self, keys: Mapping[str, str]) -> Answer[StudyHeld]:
        return self._ask(lambda requestor: _studies(requestor, keys))

    def _is_of(self, study: StudyHeld, modality: str) -> bool:
        """Tell whether a study matches a modality: not every archive matches by it, nor says of which a study is."""
        if not modality:
            return True
        known = study.modalities or {one.modality for one in self.series(study.study_instance_uid).values()}
        return value_matches("ModalitiesInStudy", "\\".join(known), modality)

    def _ask(self, question: Callable[[Requestor], T]) -> T:
        """Ask on an association that is open already, or on a new one where there is none or it turns out to have ended."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            try:
                return self._on(kept, question)
            except AssociationAborted:
                pass
        return self._on(self._connect(), question)

    def _on(self, requestor: Requestor, question: Callable[[Requestor], T]) -> T:
        with self._lock:
            self._busy.add(requestor)
        try:
            answer = question(requestor)
        except BaseException:
            requestor.abort()
            raise
        else:
            with self._lock:
                self._idle.append(requestor)
            return answer
        finally:
            with self._lock:
                self._busy.discard(requestor)


def _studies(requestor: Requestor, keys: Mapping[str, str]) -> Answer[StudyHeld]:
    found: dict[str, StudyHeld] = {}
    try:
        for answer in bounded(requestor.find(identifier("STUDY", keys, _STUDY_KEYS))):
            if (study := _study(answer, keys)) is not None:
                found.setdefault(study.study_instance_uid, study)
    except DimseFailed as error:
        if not found or find_meaning(error.status).kind not in _CUT:
            raise
        return Answer(found, cut=True)
    return Answer(found)


def _study(answer: Dataset, keys: Mapping[str, str]) -> StudyHeld | None:
    """Return the study of a match; None where its UID is none, or it is not what was asked for."""
    uid, date = text(answer, "StudyInstanceUID"), text(answer, "StudyDate")
    if not is_uid(uid) or contradicts(answer, keys) or (date and not value_matches("StudyDate", date, keys.get("StudyDate", ""))):
        return None
    modalities = tuple(part for part in text(answer, "ModalitiesInStudy").split("\\") if part)
    counts = count_of(answer, "NumberOfStudyRelatedSeries"), count_of(answer, "NumberOfStudyRelatedInstances")
    return StudyHeld(uid, *counts, date, text(answer, "StudyTime"), modalities)


def _sop_class(requestor: Requestor, study: str, series: str, instance: str) -> str | None:
    """Return the SOP class of an instance, empty where the place does not say; None where it does not list the instance."""
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance}
    for answer in bounded(requestor.find(identifier("IMAGE", keys, ("SOPClassUID",)))):
        if not contradicts(answer, keys):
            return text(answer, "SOPClassUID")
    return None


def _series(requestor: Requestor, study: str) -> dict[str, SeriesHeld]:
    keys = {"StudyInstanceUID": study}
    found: dict[str, SeriesHeld] = {}
    for answer in bounded(requestor.find(identifier("SERIES", keys, _SERIES_KEYS))):
        uid = text(answer, "SeriesInstanceUID")
        if is_uid(uid) and not contradicts(answer, keys):
            count = count_of(answer, "NumberOfSeriesRelatedInstances")
            found.setdefault(uid, SeriesHeld(uid, count, text(answer, "Modality"), text(answer, "SeriesDescription")))
    return found
