"""The meaning of an element's value, however it is written (PS3.5 §6.2): equal meanings are one value. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal, InvalidOperation

TEXT = frozenset(
    {b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UC", b"UI", b"UR", b"UT"}
)
"""VRs whose values are text, and padded."""

_NUMBERS = frozenset({b"DS", b"IS"})
_SINGLE = frozenset({b"LT", b"ST", b"UR", b"UT"})
"""A backslash in them is one, and spaces before the text count."""

_LEADING_SPACES_COUNT = _SINGLE | {b"UC"}
_OF_BYTES = frozenset({b"OB", b"UN"})
_PADDING = b" \0"


def meaning(vr: bytes, value: bytes) -> Hashable:
    """Return what `value`, as it stands in a Little Endian data set, means as `vr`.

    Padding does not count, nor how a decimal or integer string writes its number. Everything else does: leading zeros of an
    identifier, empty values among several, spaces before long text.
    """
    if vr not in TEXT:
        return padded(vr, value)
    if vr in _SINGLE:
        return value.rstrip(_PADDING)
    if not value.isascii() or b"\x1b" in value:
        # A byte that looks like a backslash may be the second half of a character (PS3.5 §6.1.2.5).
        return value.rstrip(_PADDING) if vr in _LEADING_SPACES_COUNT else value.strip(_PADDING)
    return tuple(_single(vr, one) for one in value.split(b"\\"))


def padded(vr: bytes, value: bytes) -> bytes:
    """Return `value` with the zero byte that makes the length of bytes even (PS3.5 §6.2), where a writer left it out."""
    return value + b"\0" if vr in _OF_BYTES and len(value) % 2 else value


def _single(vr: bytes, value: bytes) -> Hashable:
    text = value.rstrip(_PADDING)
    if vr not in _LEADING_SPACES_COUNT:
        text = text.lstrip(_PADDING)
    return _number(text) if vr in _NUMBERS else text


def _number(text: bytes) -> Hashable:
    try:
        number = Decimal(text.decode("ascii"))
    except InvalidOperation:
        return text
    return number if number.is_finite() and b"_" not in text else text
