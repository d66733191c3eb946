"""An independent judge of pixels: what GDCM finds in a file, compared cell by cell with what we wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np

from tests.support.transcoding import DataSet


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
