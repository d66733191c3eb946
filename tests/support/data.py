"""Test data: the real files that come with pydicom and pydicom-data, and generated CT series of any size."""

from __future__ import annotations

import functools
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import data_store
import numpy as np
import pydicom
import pydicom.data
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from gateway.core.domain import is_conforming_uid as is_uid

MakeSeries = Callable[..., list[Path]]

UID_ROOT = "1.2.826.0.1.3680043.10.1338"
"""Root of generated UIDs; below it: seed, then study, series, instance."""

_BROKEN = {
    # Everything in VR UN, the UIDs too: dcmqrscp does not index it, and Orthanc refuses it by C-STORE (C000).
    "explicit_VR-UN.dcm",
    # Their pixel data or a sequence ends before its stated length: no peer can store them as they are.
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "bad_sequence.dcm",
    "nested_priv_SQ.dcm",
    "no_meta_group_length.dcm",
}


_NEEDED = ("SOP Class UID", "SOP Instance UID", "Study Instance UID", "Series Instance UID")


def _roots() -> tuple[Path, ...]:
    return Path(pydicom.data.__file__).parent / "test_files", Path(data_store.__file__).parent / "data"


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _candidates() -> Iterator[Path]:
    for root in _roots():
        yield from _files(root)


def head(path: Path) -> pydicom.FileDataset | None:
    """Return the UIDs and the patient id of a file, None where it is no whole DICOM file."""
    keys = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=keys)
    except (pydicom.errors.InvalidDicomError, EOFError, OSError, ValueError):
        return None


def _storable(found: pydicom.FileDataset) -> bool:
    uids = [str(found.get(key) or "") for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")]
    return all(is_uid(uid) for uid in uids) and is_uid(str(found.file_meta.get("TransferSyntaxUID", "")))


@functools.cache
def real_files() -> tuple[Path, ...]:
    """Return one file for each SOP Instance UID that names its class, study, series and transfer syntax, in a stable order.

    Where several files share a SOP Instance UID, the one in the syntax seen least often so far is taken.
    """
    by_uid: dict[str, list[tuple[str, Path]]] = {}
    for path in _candidates():
        found = None if path.name in _BROKEN or path.name.startswith("DICOMDIR") else head(path)
        if found is not None and _storable(found):
            by_uid.setdefault(str(found.SOPInstanceUID), []).append((str(found.file_meta.TransferSyntaxUID), path))
    seen = Counter(files[0][0] for files in by_uid.values() if len(files) == 1)
    chosen = []
    for files in by_uid.values():
        syntax, path = min(files, key=lambda entry: seen[entry[0]])
        seen[syntax] += 1
        chosen.append(path)
    return tuple(chosen)


@functools.cache
def sendable() -> tuple[Path, ...]:
    """Return every file that a C-STORE can be made of, also broken ones and those that share a SOP Instance UID."""
    return tuple(path for path in _candidates() if not _why_not(path))


@functools.cache
def not_sendable() -> dict[str, str]:
    """Return the other files by name, with the reason."""
    return {str(path.relative_to(root)): why for root in _roots() for path in _files(root) if (why := _why_not(path))}


def _why_not(path: Path) -> str:
    found = head(path)
    if found is None:
        return "no Part 10 file"
    if path.name.startswith("DICOMDIR"):
        return "a DICOMDIR"
    uids = {"Transfer Syntax UID": found.file_meta.get("TransferSyntaxUID")}
    uids |= {name: found.get(name.replace(" ", "")) for name in _NEEDED}
    missing = [name for name, uid in uids.items() if not is_uid(str(uid or ""))]
    return f"no {', '.join(missing)}" if missing else ""


@functools.cache
def real_file(name: str) -> Path:
    """Return the file `name` of pydicom's test files or pydicom-data."""
    return next(path for path in _candidates() if path.name == name)


@functools.cache
def real_images() -> tuple[Path, ...]:
    """Return every real Part 10 file, broken ones too, but DICOMDIRs and the many slices that are alike."""
    named = (path for path in _candidates() if not path.name.startswith(("DICOMDIR", "IM0")))
    return tuple(path for path in named if head(path) is not None and ("." in path.name or path.name in ("6154", "17106")))


def identity(path: Path) -> tuple[str, str, str, str]:
    """Return (study, series, SOP instance, SOP class) of a file."""
    found = head(path)
    assert found is not None, path
    return str(found.StudyInstanceUID), str(found.SeriesInstanceUID), str(found.SOPInstanceUID), str(found.SOPClassUID)


def ct_dataset(*, seed: int, number: int, rows: int = 64, series: int = 1) -> FileDataset:
    """Return a CT slice of rows × rows × 16 bit noise over a disc; the same arguments give the same bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{UID_ROOT}.{seed}.1.{series}.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(f"{UID_ROOT}.{seed}.1"), UID(f"{UID_ROOT}.{seed}.1.{series}")
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = f"Test^M\xfcller^{seed}", f"TEST{seed}"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240229", "120000", f"ACC{seed}"
    dataset.StudyID, dataset.Modality = str(seed), "CT"
    dataset.SeriesNumber, dataset.InstanceNumber = series, number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PixelSpacing, dataset.SliceThickness = ["0.7", "0.7"], "1"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = ["0", "0", str(number)], ["1", "0", "0", "0", "1", "0"]
    dataset.FrameOfReferenceUID = UID(f"{UID_ROOT}.{seed}.2")
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = rows
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.add_new(0x00091010, "LO", "private, kept")
    dataset.add_new(0x00090010, "LO", "GATEWAY TESTS")
    dataset.PixelData = _noise(seed, number, rows).tobytes()
    return dataset


def _noise(seed: int, number: int, rows: int) -> np.ndarray:
    random = np.random.default_rng((seed, number))
    axis = np.linspace(-1, 1, rows)
    disc = (axis[:, None] ** 2 + axis[None, :] ** 2 < 0.8) * 1000
    return (disc + random.integers(0, 60, (rows, rows))).astype("<u2")


def ct_series(folder: Path, count: int, *, rows: int = 64, seed: int = 1, j2k: bool = False, series: int = 1) -> list[Path]:
    """Write a CT series of `count` slices as Part 10 files, uncompressed or in JPEG 2000 Lossless; returns their paths in order.

    512 rows are 525 KB a slice. The same arguments give the same UIDs and pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, count + 1):
        dataset = ct_dataset(seed=seed, number=number, rows=rows, series=series)
        if j2k:
            dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        path = folder / f"{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def ct_copies(folder: Path, count: int, *, rows: int = 512, seed: int = 1) -> list[Path]:
    """Write `count` instances that differ in UID and number only, fast: for load where pixels do not matter."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    dataset = ct_dataset(seed=seed, number=10000, rows=rows)
    dataset.InstanceNumber = 10000
    dataset.save_as(model, enforce_file_format=True)
    template = model.read_bytes()
    old = str(dataset.SOPInstanceUID).encode()
    paths = []
    for number in range(10001, 10001 + count):
        new = old[: -len(b"10000")] + str(number).encode()
        path = folder / f"{number}.dcm"
        path.write_bytes(template.replace(old, new))
        paths.append(path)
    model.unlink()
    return paths


def copy_all(files: tuple[Path, ...] | list[Path], folder: Path) -> Path:
    """Copy files under numbered names into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(files):
        shutil.copyfile(path, folder / f"{number:05d}.dcm")
    return folder
