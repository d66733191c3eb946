"""An independent judge of pixels: what GDCM finds in a file, compared cell by cell with what we wrote.

Where GDCM cannot be asked, pydicom is: the tables say where. `tests/codec/test_real_files.py` holds DCMTK against the same files.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np

from gateway.dicom.syntaxes import HTJ2K_LOSSLESS, RLE_LOSSLESS
from tests.support import comparing
from tests.support.transcoding import DataSet

CRASH_GDCM = ("rtdose_1frame.dcm", "rtdose_rle_1frame.dcm", "rtdose_expb_1frame.dcm")
"""GDCM ends the process over a dose without frames."""

_MISREAD_BY_GDCM = re.compile(r"SC_rgb_rle_(16|32)bit|.*((16|32)bit|small_odd).*->RLE")
"""GDCM misreads RLE in colour with more than eight bits, and tiny ones; DCMTK agrees with us there."""

SET_BY_TRANSCODING = frozenset({"(0028,0004)", "(0028,0006)", "(0028,2110)", "(7FE0,0001)", "(7FE0,0002)", "(7FE0,0003)"})
"""Elements that describe the encoding of the pixels, and change with it."""


@dataclass(frozen=True)
class Judged:
    """An image as GDCM sees it: cells of (frames, rows, columns, samples), and its Photometric Interpretation."""

    cells: np.ndarray
    photometric: str


def by_gdcm(path: Path) -> Judged | None:
    """Return what GDCM finds in the file `path`; None where it finds no image or cannot decode it."""
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    image = reader.GetImage()
    columns, rows, *rest = [image.GetDimension(index) for index in range(image.GetNumberOfDimensions())]
    frames = rest[0] if rest else 1
    pixel = image.GetPixelFormat()
    photometric = str(image.GetPhotometricInterpretation().GetString()).strip()
    text = image.GetBuffer()
    if text is None:
        return None
    buffer = text.encode("utf-8", "surrogateescape")
    if pixel.GetBitsAllocated() == 1:
        return Judged(np.frombuffer(buffer, "u1"), photometric)
    samples = pixel.GetSamplesPerPixel()
    cells = np.frombuffer(buffer, f"<u{pixel.GetBitsAllocated() // 8}")
    if cells.size != frames * rows * columns * samples:
        return None
    if samples > 1 and image.GetPlanarConfiguration() == 1:
        return Judged(cells.reshape(frames, samples, rows, columns).transpose(0, 2, 3, 1), photometric)
    return Judged(cells.reshape(frames, rows, columns, samples), photometric)


def by_pydicom(dataset: DataSet) -> Judged:
    """Return what pydicom finds in a data set."""
    found, cells = dataset.read(), dataset.pixels()
    shape = (int(found.get("NumberOfFrames") or 1), found.Rows, found.Columns, found.SamplesPerPixel)
    return Judged(cells.reshape(shape), str(found.PhotometricInterpretation))


def same(one: Judged, other: Judged, bits: int) -> bool:
    """Tell whether two images have the same pixels, of which `bits` are stored."""
    mask = (1 << min(bits, 32)) - 1
    return one.cells.shape == other.cells.shape and bool(
        np.array_equal(one.cells.astype(np.uint32) & mask, other.cells.astype(np.uint32) & mask)
    )


def elements_differ(before: bytes | Path, after: bytes | Path, but: Collection[str] = SET_BY_TRANSCODING) -> str:
    """Return which elements are not the same, `but` for these of the data set itself; pixels are judged by `pixels_differ`."""
    found = comparing.differences(before, after, with_pixels=False)
    return ", ".join(each for each in found if each.rpartition(" ")[0] not in but)


def pixels_differ(path: Path, source: DataSet, made: DataSet, folder: Path) -> str:
    """Return what is wrong with the pixels of `made` beside those of `source`, the data set of the file `path`."""
    written = made.read()
    if "PixelData" not in written or "BitsStored" not in written:
        return ""
    not_for_gdcm = path.name in CRASH_GDCM or _MISREAD_BY_GDCM.match(f"{path.name}->{'RLE' if made.syntax == RLE_LOSSLESS else ''}")
    before = by_pydicom(source) if not_for_gdcm else by_gdcm(path)
    unknown_to_gdcm = not_for_gdcm or made.syntax == HTJ2K_LOSSLESS
    after = by_pydicom(made) if unknown_to_gdcm else by_gdcm(made.write(folder))
    if before is None:
        return "" if path.name == "nested_priv_SQ.dcm" else "GDCM cannot read it"
    if after is None or not same(before, after, written.BitsStored):
        return "pixels differ"
    return ""
