"""Are two instances the same after they crossed DIMSE? Elements compared without their encoding, and pixel data.

A peer may change what PS3.5 leaves to the encoder: transfer syntax, explicit or undefined lengths, padding of values, group
lengths, trailing padding (FFFC,FFFC), the VR written for an unknown private element. Everything else must stay.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag

_PIXELS = {Tag(0x7FE00008), Tag(0x7FE00009), Tag(0x7FE00010)}
_PADDING = Tag(0xFFFCFFFC)


def read(source: bytes | Path) -> pydicom.FileDataset:
    """Read a Part 10 file from bytes or a path, without judging it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(source) if isinstance(source, bytes) else source)


def differences(before: bytes | Path, after: bytes | Path, *, with_pixels: bool = True) -> list[str]:
    """Return what is different between two instances, by tag only; empty when elements and pixel data are equal.

    Without `with_pixels`, pixel data is left to others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = read(before), read(after)
        left, right = dict(_canonical(one, _big(one))), dict(_canonical(other, _big(other)))
        found = [_describe(key, left, right) for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
        if with_pixels and not _same_pixels(one, other):
            found.append("pixel data differs")
    return found


def _describe(key: tuple[str, ...], left: dict[tuple[str, ...], bytes], right: dict[tuple[str, ...], bytes]) -> str:
    kind = "missing" if key not in right else "added" if key not in left else "changed"
    return f"{' > '.join(key)} {kind}"


def _big(dataset: pydicom.FileDataset) -> bool:
    return not dataset.file_meta.TransferSyntaxUID.is_little_endian


def _canonical(dataset: Dataset, big_endian: bool, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for tag in sorted(dataset.keys()):
        if tag in _PIXELS or tag == _PADDING or tag.element == 0:
            continue
        element = dataset[tag]
        here = (*path, str(tag))
        if element.VR == "SQ":
            yield here, b"sequence"
            for number, item in enumerate(element.value):
                yield from _canonical(item, big_endian, (*here, f"item {number}"))
        else:
            yield here, _value(element, big_endian)


def _value(element: DataElement, big_endian: bool) -> bytes:
    if isinstance(element.value, bytes):
        value = element.value
        return (_swapped(value) if big_endian and element.VR == "OW" else value).rstrip(b"\0 ")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_data_element(buffer, element, ["utf-8"])
    return buffer.getvalue()[8:].rstrip(b"\0 ")


def _swapped(value: bytes) -> bytes:
    swapped = bytearray(value)
    swapped[0::2], swapped[1::2] = value[1::2], value[0::2]
    return bytes(swapped)


def _same_pixels(one: pydicom.FileDataset, other: pydicom.FileDataset) -> bool:
    tags = {tag for tag in _PIXELS if tag in one}
    if tags != {tag for tag in _PIXELS if tag in other}:
        return False
    if not tags:
        return True
    (tag,) = tags
    first, second = one.file_meta.TransferSyntaxUID, other.file_meta.TransferSyntaxUID
    if first == second:
        return _stored(one[tag].value, first.is_encapsulated) == _stored(other[tag].value, second.is_encapsulated)
    return bool((one.pixel_array == other.pixel_array).all())


def _stored(value: bytes, encapsulated: bool) -> list[bytes]:
    if not encapsulated:
        return [value.rstrip(b"\0")]
    return [bytes(fragment) for fragment in list(generate_fragments(value))[1:]]
