"""What an element's value means, whatever way it is encoded (PS3.5 §6.2): equal meanings are one value. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal, InvalidOperation
from typing import Any

from pydicom.multival import MultiValue

TEXT = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
"""VRs whose values are text, and padded."""

_NUMBERS = frozenset({"DS", "IS"})
_LEADING_SPACES_COUNT = frozenset({"LT", "ST", "UC", "UR", "UT"})
_WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_PADDING = " \0"


def meaning(vr: str, value: Any, *, big_endian: bool = False) -> Hashable:
    """Return what the value of an element, as pydicom gives it, means.

    Padding does not count, nor how a decimal or integer string writes its number. Everything else does: leading zeros of an
    identifier, empty values among several, spaces before long text. `big_endian` says how words are ordered that are given as
    bytes.
    """
    if isinstance(value, bytes):
        return _in_little_endian(value, _WORDS.get(vr, 1)) if big_endian else value
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    return tuple(_single(vr, one) for one in values) or ("",)


def encoded_meaning(vr: str, value: bytes) -> bytes:
    """Return what a value of `vr` means as it is encoded in Little Endian, to be compared with one that has no VR (UN)."""
    return value.rstrip(_PADDING.encode()) if vr in TEXT else value


def _single(vr: str, value: Any) -> Hashable:
    if value is None:
        return ""
    text = str(value).rstrip(_PADDING)
    if vr not in _LEADING_SPACES_COUNT:
        text = text.lstrip(_PADDING)
    return _number(text) if vr in _NUMBERS else text


def _number(text: str) -> Hashable:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return number.normalize() if number.is_finite() else text


def _in_little_endian(value: bytes, size: int) -> bytes:
    """Return words of `size` bytes the other way round; what is no whole word stays as it is."""
    whole = len(value) - len(value) % size
    swapped = bytearray(value)
    for place in range(size):
        swapped[place:whole:size] = value[size - 1 - place : whole : size]
    return bytes(swapped)
