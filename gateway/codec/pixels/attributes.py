"""The description of the pixels in a data set (PS3.3 §C.7.6.3, PS3.5 §8): read, and checked for contradictions. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gateway.core.errors import NotTranscodable

SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION = 0x00280002, 0x00280004, 0x00280006
NUMBER_OF_FRAMES, ROWS, COLUMNS = 0x00280008, 0x00280010, 0x00280011
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
LOSSY_IMAGE_COMPRESSION = 0x00282110

WANTED = frozenset(
    {SAMPLES_PER_PIXEL, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, NUMBER_OF_FRAMES, ROWS, COLUMNS}
    | {BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION, LOSSY_IMAGE_COMPRESSION}
)

SUBSAMPLED = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})
"""Uncompressed, these share chrominance between pixels (PS3.3 §C.7.6.3.1.2)."""

MAX_NATIVE_BYTES = 0xFFFFFFFE
"""The most that Pixel Data with a length can hold (PS3.5 §7.1)."""


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """The Image Pixel attributes, checked; `frames` is 1 where Number of Frames is absent."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    frames: int = 1

    @property
    def frame_bytes(self) -> int:
        """The length of one uncompressed frame in bytes; one-bit pixels are packed across frames and have no such length."""
        samples = 2 if self.photometric in SUBSAMPLED else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8

    @property
    def native_bytes(self) -> int:
        """The length of all frames uncompressed, in bytes without padding."""
        if self.bits_allocated == 1:
            return (self.rows * self.columns * self.samples * self.frames + 7) // 8
        return self.frame_bytes * self.frames

    def as_dict(self) -> dict[str, int | str | bool]:
        """Return the fields by name."""
        return asdict(self)


def describe(values: Mapping[int, bytes]) -> PixelDescription:
    """Return what the elements `values` (Little Endian, by tag) say.

    Raises:
        NotTranscodable: something that is needed is absent, or is not what PS3.5 §8.1.1 and §8.2 allow.
    """
    description = PixelDescription(
        rows=_number(values, ROWS),
        columns=_number(values, COLUMNS),
        samples=_number(values, SAMPLES_PER_PIXEL),
        photometric=text(values.get(PHOTOMETRIC_INTERPRETATION, b"")),
        planar=_number(values, PLANAR_CONFIGURATION, 0),
        bits_allocated=_number(values, BITS_ALLOCATED),
        bits_stored=_number(values, BITS_STORED),
        signed=_number(values, PIXEL_REPRESENTATION) == 1,
        frames=_frames(values),
    )
    problem = _problem(description, _number(values, HIGH_BIT))
    if problem:
        raise NotTranscodable(problem)
    return description


def text(value: bytes) -> str:
    """Return a code string without its padding."""
    return value.decode("latin-1").strip(" \0")


def _number(values: Mapping[int, bytes], tag: int, default: int | None = None) -> int:
    value = values.get(tag, b"")
    if len(value) == 2:
        return int.from_bytes(value, "little")
    if default is not None and not value:
        return default
    raise NotTranscodable(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is absent or no number")


def _frames(values: Mapping[int, bytes]) -> int:
    value = text(values.get(NUMBER_OF_FRAMES, b""))
    if not value:
        return 1
    if re.fullmatch(r"\+?[0-9]{1,9}", value) is None or int(value) < 1:
        raise NotTranscodable("(0028,0008) Number of Frames is no number of frames")
    return int(value)


def _problem(found: PixelDescription, high_bit: int) -> str:
    if not (found.rows and found.columns):
        return "the image has no rows or no columns"
    if found.samples not in (1, 3, 4) or found.planar > 1:
        return f"{found.samples} samples per pixel in planar configuration {found.planar}"
    if found.bits_allocated not in (1, 8, 16, 32, 64):
        return f"{found.bits_allocated} bits allocated"
    if not 1 <= found.bits_stored <= found.bits_allocated:
        return f"{found.bits_stored} bits stored of {found.bits_allocated} allocated"
    if high_bit != found.bits_stored - 1:
        return f"high bit {high_bit} with {found.bits_stored} bits stored"
    return ""
