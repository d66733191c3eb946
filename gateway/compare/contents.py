"""What two Part 10 files of one SOP Instance UID differ in: elements by name, and pixels. Blocking; no value ever gets out.

Not compared: File Meta Information, group lengths, Data Set Trailing Padding (FFFC,FFFC), padding of values, how numbers are
written in decimal strings, and with which VR an element is encoded. Pixels are the same where both files have one transfer syntax
and the same bytes, else they are decoded and compared frame by frame. Where transfer syntaxes differ, so may Photometric
Interpretation and Planar Configuration (PS3.5 §8.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

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
    if _bytes(a, tag) == _bytes(b, tag) is not None:
        return
    try:
        left, right = a[tag], b[tag]
        if left.VR == right.VR == "SQ":
            yield from _sequences(left, right, name)
        elif _canonical(left) != _canonical(right):
            yield name
    except Exception:  # noqa: BLE001 - a value that pydicom cannot make anything of, and that is not the same bytes
        yield name


def _bytes(dataset: Dataset, tag: int) -> bytes | None:
    """Return a value as it is encoded, without padding, None where it was not kept so; equal bytes mean the same."""
    value = getattr(dataset.get_item(tag), "value", None)
    return value.rstrip(b" \0") if isinstance(value, bytes) else None


def _sequences(a: DataElement, b: DataElement, name: str) -> Iterator[str]:
    for number, (left, right) in enumerate(zip_longest(a.value, b.value), 1):
        if left is None or right is None:
            yield f"{name}[{number}]"
        else:
            yield from _elements(left, right, f"{name}[{number}].")


def _canonical(element: DataElement) -> Any:
    """Return a value such that equal ones mean the same."""
    value = element.value
    if isinstance(value, bytes):
        return value.rstrip(b"\0") if len(value) < _DEFER_BYTES else hashlib.blake2b(value).digest()
    values = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [_single(one) for one in values if one is not None and str(one) != ""] or [""]


def _single(value: Any) -> Any:
    text = str(value).strip(" \0")
    try:
        return Decimal(text).normalize()
    except InvalidOperation:
        return text


def _same_pixels(a: Path, b: Path, left: FileDataset, right: FileDataset) -> bool:
    tags = [{int(tag) for tag in dataset.keys() & _PIXEL_DATA} for dataset in (left, right)]
    if tags[0] != tags[1]:
        return False
    if not tags[0]:
        return True
    syntaxes = [dataset.file_meta.TransferSyntaxUID for dataset in (left, right)]
    native = not any(syntax.is_compressed for syntax in syntaxes)
    if (syntaxes[0] == syntaxes[1] or native) and all(_stored(left, tag) == _stored(right, tag) for tag in tags[0]):
        return True
    if native and syntaxes[0].is_little_endian == syntaxes[1].is_little_endian:
        return False
    return _decoded_alike(*(_readable(*one) for one in zip((a, b), (left, right), syntaxes, strict=True)))


def _readable(path: Path, dataset: FileDataset, syntax: UID) -> Path | FileDataset:
    """Return what frames are read from: the file, frame by frame, but for one that is deflated as a whole."""
    return dataset if syntax == DeflatedExplicitVRLittleEndian else path


def _stored(dataset: Dataset, tag: int) -> bytes:
    return hashlib.blake2b(bytes(dataset[tag].value).rstrip(b"\0")).digest()


def _decoded_alike(a: Path | FileDataset, b: Path | FileDataset) -> bool:
    try:
        frames = zip_longest(iter_pixels(a), iter_pixels(b))
        return all(left is not None and right is not None and _equal(left, right) for left, right in frames)
    except Exception as error:  # noqa: BLE001 - a decoder's own, of a stranger's codestream
        raise Unreadable(f"the pixels cannot be decoded ({type(error).__name__})") from None


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool((a == b).all())
