"""What two Part 10 files of one SOP Instance UID differ in: elements by name, and pixels. Blocking; no value ever gets out.

Not compared: File Meta Information, group lengths, Data Set Trailing Padding (FFFC,FFFC), padding of values, how numbers are
written in decimal and integer strings, and with which VR an element is encoded (`gateway.compare.meaning`). Pixels are the same
where both files have one transfer syntax and the same bytes, else they are decoded and compared frame by frame. Where transfer
syntaxes differ, so may Photometric Interpretation and Planar Configuration (PS3.5 §8.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.compare.meaning import encoded_meaning, meaning

PIXELS = "pixels"

_TRAILING_PADDING = 0xFFFCFFFC
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002})
_ENCODED = frozenset({"PhotometricInterpretation", "PlanarConfiguration"})
_DEFER_BYTES = 1 << 20


class Unreadable(Exception):
    """A file cannot be compared; the text says why, and names nothing of what is in it."""


def differing(a: Path, b: Path) -> tuple[str, ...]:
    """Return what two files differ in: keywords or tags of elements, as ``Sequence[2].Keyword`` within sequences, and `PIXELS`.

    Raises:
        Unreadable: one is no DICOM file, or its pixels cannot be decoded where that is needed.
    """
    try:
        return _differing(a, b)
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's file: whatever pydicom makes of it, it cannot be compared
        raise Unreadable(f"a file cannot be compared ({type(error).__name__})") from None


def _differing(a: Path, b: Path) -> tuple[str, ...]:
    left, right = _read(a), _read(b)
    names = list(_elements(left, right, ""))
    if left.file_meta.get("TransferSyntaxUID") != right.file_meta.get("TransferSyntaxUID"):
        names = [name for name in names if name not in _ENCODED]
    if not _same_pixels(a, b, left, right):
        names.append(PIXELS)
    return tuple(names)


def _read(path: Path) -> FileDataset:
    try:
        return dcmread(path, defer_size=_DEFER_BYTES)
    except Exception as error:  # noqa: BLE001 - a stranger's file: whatever pydicom makes of it, it cannot be compared
        raise Unreadable(f"a file cannot be read ({type(error).__name__})") from None


def _elements(a: Dataset, b: Dataset, within: str) -> Iterator[str]:
    for tag in sorted({int(tag) for tag in (*a.keys(), *b.keys())}):
        if not (tag & 0xFFFF and tag != _TRAILING_PADDING and tag not in _PIXEL_DATA and tag not in _OFFSET_TABLES):
            continue
        name = within + (keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})")
        if tag not in a or tag not in b:
            yield name
        else:
            yield from _element(a, b, tag, name)


def _element(a: Dataset, b: Dataset, tag: int, name: str) -> Iterator[str]:
    raw = _encoded(a, tag), _encoded(b, tag)
    if raw[0] is not None and raw[0].value is not None and raw[0] == raw[1]:
        return
    try:
        left, right = a[tag], b[tag]
        if left.VR == right.VR == "SQ":
            yield from _sequences(left, right, name)
        elif not _same(left, right, *raw):
            yield name
    except Exception:  # noqa: BLE001 - a value that pydicom cannot make anything of, and that is not the same bytes
        yield name


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A value as the file has it; None where it is read only when it is asked for."""

    value: bytes | None
    big_endian: bool


def _encoded(dataset: Dataset, tag: int) -> _Encoded | None:
    """Return a value as it is encoded, None where that was not kept; equal ones mean the same, whatever their VR."""
    raw = dataset.get_item(tag, keep_deferred=True)
    return _Encoded(raw.value, not raw.is_little_endian) if isinstance(raw, RawDataElement) else None


def _same(a: DataElement, b: DataElement, left: _Encoded | None, right: _Encoded | None) -> bool:
    """Tell whether two values mean the same; one whose VR is not known by what it is encoded as."""
    if a.VR == b.VR:
        big = [raw is not None and raw.big_endian for raw in (left, right)]
        return meaning(a.VR, a.value, big_endian=big[0]) == meaning(b.VR, b.value, big_endian=big[1])
    if left is None or right is None or left.value is None or right.value is None or left.big_endian or right.big_endian:
        return bool(a.value == b.value)
    known = b.VR if a.VR == "UN" else a.VR
    return encoded_meaning(known, left.value) == encoded_meaning(known, right.value)


def _sequences(a: DataElement, b: DataElement, name: str) -> Iterator[str]:
    for number, (left, right) in enumerate(zip_longest(a.value, b.value), 1):
        if left is None or right is None:
            yield f"{name}[{number}]"
        else:
            yield from _elements(left, right, f"{name}[{number}].")


def _same_pixels(a: Path, b: Path, left: FileDataset, right: FileDataset) -> bool:
    tags = [{int(tag) for tag in dataset.keys() & _PIXEL_DATA} for dataset in (left, right)]
    if tags[0] != tags[1]:
        return False
    if not tags[0]:
        return True
    syntaxes = [dataset.file_meta.TransferSyntaxUID for dataset in (left, right)]
    native = not any(syntax.is_compressed for syntax in syntaxes)
    alike = native and syntaxes[0].is_little_endian == syntaxes[1].is_little_endian
    if alike or syntaxes[0] == syntaxes[1]:
        same = all(_same_bytes(bytes(left[tag].value), bytes(right[tag].value)) for tag in tags[0])
        if same or alike:
            return same
    return _decoded_alike(*(_readable(*one) for one in zip((a, b), (left, right), syntaxes, strict=True)))


def _readable(path: Path, dataset: FileDataset, syntax: UID) -> Path | FileDataset:
    """Return what frames are read from: the file, frame by frame, but for one that is deflated as a whole."""
    return dataset if syntax == DeflatedExplicitVRLittleEndian else path


def _same_bytes(a: bytes, b: bytes) -> bool:
    """Tell whether two values are the same but for the byte that makes one even (PS3.5 §8.1.1)."""
    short, long = sorted((a, b), key=len)
    return long == short or (len(short) % 2 == 1 and long == short + b"\0")


def _decoded_alike(a: Path | FileDataset, b: Path | FileDataset) -> bool:
    try:
        frames = zip_longest(iter_pixels(a), iter_pixels(b))
        return all(left is not None and right is not None and _equal(left, right) for left, right in frames)
    except Exception as error:  # noqa: BLE001 - a decoder's own, of a stranger's codestream
        raise Unreadable(f"the pixels cannot be decoded ({type(error).__name__})") from None


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a == b).all())
