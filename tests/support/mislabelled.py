"""CT slices whose file says another transfer syntax than their data set is in, as careless archives keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.support import data

Kind = tuple[str, str] | tuple[str, str, Callable[[bytes], bytes]]
"""The transfer syntax of the data set, the one that is declared, and what is done to its bytes."""

_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_NATIVE = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}


def damaged(made: bytes, filler: bytes) -> bytes:
    """Return encapsulated pixels whose codestream ends in `filler`: every length is right, and nobody can decode it."""
    assert made.endswith(_END)
    tail = (filler * 3000)[:3000]
    return made[: -len(_END) - len(tail)] + tail + _END


def shortened(made: bytes) -> bytes:
    """Return native pixels of which the last 1000 bytes are not there, in an element that is as short."""
    place = made.rindex(b"\xe0\x7f\x10\x00")
    return made[: place + 8] + (len(made) - 1000 - place - 12).to_bytes(4, "little") + made[place + 12 : -1000]


GOOD: Mapping[str, Kind] = {
    "native": (ExplicitVRLittleEndian, ExplicitVRLittleEndian),
    "J2K": (JPEG2000Lossless, JPEG2000Lossless),
}

PROVABLE: Mapping[str, Kind] = {
    "RLE as J2K": (RLELossless, JPEG2000Lossless),
    "JPEG-LS as J2K": (JPEGLSLossless, JPEG2000Lossless),
    "native as J2K": (ExplicitVRLittleEndian, JPEG2000Lossless),
    "native as RLE": (ExplicitVRLittleEndian, RLELossless),
    "J2K as RLE": (JPEG2000Lossless, RLELossless),
    "JPEG-LS as RLE": (JPEGLSLossless, RLELossless),
    "J2K as native": (JPEG2000Lossless, ExplicitVRLittleEndian),
    "RLE as native": (RLELossless, ExplicitVRLittleEndian),
    "JPEG-LS as native": (JPEGLSLossless, ExplicitVRLittleEndian),
    "implicit as explicit": (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
    "explicit as implicit": (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    "implicit as J2K": (ImplicitVRLittleEndian, JPEG2000Lossless),
    "J2K as implicit": (JPEG2000Lossless, ImplicitVRLittleEndian),
}
"""Slices of which decoding every frame, or every length, proves what they are."""

UNPROVABLE: Mapping[str, Kind] = {
    "damaged RLE as J2K": (RLELossless, JPEG2000Lossless, lambda made: damaged(made, b"\x7f")),
    "damaged JPEG-LS as J2K": (JPEGLSLossless, JPEG2000Lossless, lambda made: damaged(made, b"\xff\xd9")),
    "damaged J2K as native": (JPEG2000Lossless, ExplicitVRLittleEndian, lambda made: damaged(made, b"\xff\x93")),
    "damaged RLE as native": (RLELossless, ExplicitVRLittleEndian, lambda made: damaged(made, b"\x7f")),
    "short native": (ExplicitVRLittleEndian, ExplicitVRLittleEndian, shortened),
    "short native as J2K": (ExplicitVRLittleEndian, JPEG2000Lossless, shortened),
    "short native as RLE": (ExplicitVRLittleEndian, RLELossless, shortened),
}
"""Slices that are not what they are declared to be, nor anything else that can be proved."""


def slice_of(kind: Kind, *, seed: int, number: int) -> bytes:
    """Return the file of a slice of `data.ct_dataset` that is of `kind`."""
    syntax, label, *change = kind
    dataset = data.ct_dataset(seed=seed, number=number)
    if syntax in _NATIVE:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    read_preamble(buffer, force=False)
    _read_file_meta_info(buffer)
    made = buffer.read()
    for one in change:
        made = one(made)
    meta = dataset.file_meta
    meta.TransferSyntaxUID = pydicom.uid.UID(label)
    written = DicomBytesIO()
    pydicom.filewriter.write_file_meta_info(written, meta)
    return bytes(128) + b"DICM" + written.getvalue() + made


def series_of(folder: Path, kinds: Mapping[str, Kind], *, seed: int) -> dict[str, Path]:
    """Write a slice of each of `kinds`, numbered from 1; returns SOP Instance UID to file, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, kind in enumerate(kinds.values(), 1):
        path = folder / f"{number:05d}.dcm"
        path.write_bytes(slice_of(kind, seed=seed, number=number))
        found[f"{data.UID_ROOT}.{seed}.1.1.{number}"] = path
    return found
