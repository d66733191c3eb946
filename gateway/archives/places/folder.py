"""Places that are folders: one that we deliver into, read by its names, and any folder of files, read file by file.

Files are recognised as ``gateway send`` does, zip archives left out. Two files with one SOP Instance UID are one instance,
the first in the order of the folders.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from gateway.archives.folder_identity import FolderIdentity
from gateway.archives.places.matching import matches
from gateway.archives.places.place import Complete, SeriesHeld, StudyHeld, Unheld
from gateway.core.domain import InstanceIdentity, is_uid
from gateway.core.errors import UsageError
from gateway.core.files import create_private
from gateway.core.walk import walk
from gateway.dicom.filenames import is_digest, name_of, uid_of
from gateway.dicom.head import read_head
from gateway.dicom.sniff import DicomFile, sniff

_STUDY_VALUES = frozenset({"StudyInstanceUID", "StudyDate", "StudyTime"})
_SERIES_VALUES = frozenset({"Modality", "SeriesDescription"})


@dataclass(frozen=True)
class Head:
    """The identity of the instance in a file, and the values that were asked for of it."""

    identity: InstanceIdentity
    values: Mapping[str, str]


def head_of(path: Path, keywords: Iterable[str] = ()) -> Head | None:
    """Return what the file is, None where it is no instance or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = sniff(lambda offset, size: os.pread(descriptor, size, offset), os.fstat(descriptor).st_size)
        if not isinstance(found, DicomFile):
            return None
        begin, asked = found.offset, frozenset(keywords)
        syntax = found.identity.transfer_syntax_uid
        values = read_head(lambda offset, size: os.pread(descriptor, size, begin + offset), syntax, asked).values if asked else {}
        return Head(found.identity, values)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _asked(keys: Mapping[str, str]) -> dict[str, str]:
    return {"ModalitiesInStudy" if key == "Modality" else key: value for key, value in keys.items()}


def _copy(source: Path, to: Path) -> None:
    try:
        with source.open("rb") as file, create_private(to) as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    except FileNotFoundError as error:
        raise Unheld("the file is gone") from error


class DeliveredFolder(Complete):
    """A `Place` that is the folder of a destination: ``<study>/<series>/<SOP instance>.dcm``, and nothing else in it counts.

    Of each series one file is read for its attributes, once. Questions raise DestinationUnavailable where `identity` knows that the
    folder is gone or another one: an unmounted share must not look like an empty destination.
    """

    gives_files = True

    def __init__(self, name: str, root: Path, identity: FolderIdentity | None = None) -> None:
        self.name = name
        self._root = root
        self._identity = identity
        self._heads: dict[Path, Mapping[str, str]] = {}

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`."""
        self._check()
        named = [uid for uid in keys.get("StudyInstanceUID", "").split("\\") if uid]
        held = (self._study(uid, _asked(keys)) for uid in (named or _uids_in(self._root, "*/*.dcm", _STUDY)) if is_uid(uid))
        return {study.study_instance_uid: study for study in held if study is not None}

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`."""
        self._check()
        found = {}
        for uid in self._series(study):
            if instances := self.instances(study, uid):
                values = self._head(study, uid, _SERIES_VALUES)
                found[uid] = SeriesHeld(uid, len(instances), values.get("Modality", ""), values.get("SeriesDescription", ""))
        return found

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        self._check()
        return set(self._files(study, series))

    def files(self, study: str) -> dict[str, dict[str, Path]]:
        """Return the files of a study by Series and SOP Instance UID."""
        self._check()
        return {uid: self._files(study, uid) for uid in self._series(study)}

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`."""
        if not (is_uid(study) and is_uid(series) and is_uid(instance)):
            raise Unheld(f"{self.name} does not hold it")
        self._check()
        _copy(self._folder(study, series) / f"{name_of(instance)}.dcm", to)

    def _check(self) -> None:
        if self._identity is not None:
            self._identity.check()

    def _folder(self, study: str, series: str) -> Path:
        return self._root / name_of(study) / name_of(series)

    def _series(self, study: str) -> list[str]:
        return _uids_in(self._root / name_of(study), "*.dcm", _SERIES) if is_uid(study) else []

    def _files(self, study: str, series: str) -> dict[str, Path]:
        """Return the files of a series by SOP Instance UID."""
        if not (is_uid(study) and is_uid(series)):
            return {}
        files = sorted(self._folder(study, series).glob("*.dcm"))
        return {uid: file for file in files if (uid := _uid_of(file.stem, (file,), _INSTANCE))}

    def _study(self, study: str, keys: Mapping[str, str]) -> StudyHeld | None:
        counts = {uid: count for uid in self._series(study) if (count := len(self._files(study, uid)))}
        if not counts:
            return None
        heads = [self._head(study, uid, _STUDY_VALUES | _SERIES_VALUES | frozenset(keys)) for uid in counts]
        modalities = tuple(sorted({values.get("Modality", "") for values in heads} - {""}))
        if not matches({**heads[0], "StudyInstanceUID": study, "ModalitiesInStudy": "\\".join(modalities)}, keys):
            return None
        date, time = heads[0].get("StudyDate", ""), heads[0].get("StudyTime", "")
        return StudyHeld(study, len(counts), sum(counts.values()), date, time, modalities)

    def _head(self, study: str, series: str, keywords: frozenset[str]) -> Mapping[str, str]:
        folder = self._folder(study, series)
        known = self._heads.get(folder)
        if known is None or not keywords <= known.keys():
            first = min(folder.glob("*.dcm"), default=None)
            head = head_of(first, keywords) if first is not None else None
            known = {**(known or {}), **dict.fromkeys(keywords, ""), **(head.values if head is not None else {})}
            self._heads[folder] = known
        return known


def _uids_in(folder: Path, files: str, uid: Callable[[InstanceIdentity], str]) -> list[str]:
    """Return the UIDs of the folders in `folder`; of one whose name does not tell, that of a file that matches `files` in it."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []
    return sorted(filter(None, (_uid_of(entry.name, entry.glob(files), uid) for entry in entries)))


def _uid_of(name: str, files: Iterable[Path], uid: Callable[[InstanceIdentity], str]) -> str:
    """Return the UID that a file or a folder is named by, reading one of its `files` where it has to; empty where it is none."""
    if not is_digest(name):
        return uid_of(name) or ""
    head = next((head for file in files if (head := head_of(file))), None)
    found = uid(head.identity) if head is not None else ""
    return found if name_of(found) == name else ""


_STUDY, _SERIES, _INSTANCE = map(attrgetter, ("study_instance_uid", "series_instance_uid", "sop_instance_uid"))


@dataclass
class _Series:
    files: dict[str, Path] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)


class FilesPlace(Complete):
    """A `Place` that is whatever DICOM files lie below a folder; all of them are looked at once, at the first question."""

    gives_files = True

    def __init__(self, name: str, root: Path) -> None:
        """Raises UsageError where there is no such folder."""
        if not root.exists():
            raise UsageError(f"no such file or folder: {root}")
        self.name = name
        self._root = root
        self._lock = threading.Lock()
        self._index: dict[str, dict[str, _Series]] | None = None
        self._passed: Counter[str] = Counter()

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`."""
        found = {}
        for study, series in self._studies().items():
            held = self._held(study, series, _asked(keys))
            if held is not None:
                found[study] = held
        return found

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`."""
        return {
            uid: SeriesHeld(uid, len(one.files), one.values.get("Modality", ""), one.values.get("SeriesDescription", ""))
            for uid, one in self._studies().get(study, {}).items()
        }

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        found = self._studies().get(study, {}).get(series)
        return set(found.files) if found is not None else set()

    def files(self, study: str) -> dict[str, dict[str, Path]]:
        """Return the files of a study by Series and SOP Instance UID."""
        return {uid: dict(series.files) for uid, series in self._studies().get(study, {}).items()}

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """As `Place.fetch`."""
        of_series = self._studies().get(study, {}).get(series)
        if of_series is None or instance not in of_series.files:
            raise Unheld(f"{self.name} does not hold it")
        _copy(of_series.files[instance], to)

    def remarks(self) -> tuple[str, ...]:
        """As `Place.remarks`."""
        words = {
            "unnamed": "files of {} have no Study Instance UID or Series Instance UID: left out",
            "again": "files of {} hold an instance that lies there already: the first counts",
            "refused": "files or folders of {} cannot be read",
        }
        return tuple(f"{count} {words[kind].format(self.name)}" for kind, count in self._passed.items())

    def _studies(self) -> dict[str, dict[str, _Series]]:
        with self._lock:
            if self._index is None:
                self._index = self._read()
            return self._index

    def _read(self) -> dict[str, dict[str, _Series]]:
        index: dict[str, dict[str, _Series]] = {}
        for found in walk([self._root]):
            head = head_of(found.path) if not found.reason else None
            self._passed.update(["refused"] if found.refused else [])
            if head is None:
                continue
            study, series = head.identity.study_instance_uid, head.identity.series_instance_uid
            if not (study and series):
                self._passed["unnamed"] += 1
                continue
            place = index.setdefault(study, {}).setdefault(series, _Series())
            if not place.files:
                again = head_of(found.path, _STUDY_VALUES | _SERIES_VALUES)
                place.values = again.values if again is not None else {}
            if head.identity.sop_instance_uid in place.files:
                self._passed["again"] += 1
            place.files.setdefault(head.identity.sop_instance_uid, found.path)
        return index

    def _held(self, study: str, series: Mapping[str, _Series], keys: Mapping[str, str]) -> StudyHeld | None:
        values = dict(next(iter(series.values())).values)
        modalities = tuple(sorted({one.values.get("Modality", "") for one in series.values()} - {""}))
        values |= {"StudyInstanceUID": study, "ModalitiesInStudy": "\\".join(modalities)}
        if not matches({**values, **self._further(series, keys.keys() - values.keys())}, keys):
            return None
        count = sum(len(one.files) for one in series.values())
        return StudyHeld(study, len(series), count, values.get("StudyDate", ""), values.get("StudyTime", ""), modalities)

    def _further(self, series: Mapping[str, _Series], keywords: Iterable[str]) -> Mapping[str, str]:
        """Return values that are not kept, read from a study's first file."""
        asked = frozenset(keywords)
        first = next(iter(next(iter(series.values())).files.values()))
        head = head_of(first, asked) if asked else None
        return head.values if head is not None else {}


FolderPlace = DeliveredFolder | FilesPlace
"""A place whose instances are files that can be read where they lie."""
