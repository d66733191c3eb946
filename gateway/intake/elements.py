"""Finding a few elements at the top level of a data set without decoding it (PS3.5 §7). Pure but for the reader it is given.

Written for bytes that nobody checked: no recursion, no warnings that quote values, at most `BUDGET_BYTES` read whatever the
lengths claim. Values are skipped, not read; the scan ends behind the last wanted tag. What cannot be read ends the scan, and
what was found until then is returned.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

Reader = Callable[[int, int], bytes]
"""`read(offset, size)` returns up to `size` bytes of the data set from `offset`; fewer only at its end."""

BUDGET_BYTES = 4 * 1024 * 1024
MAX_INFLATED_BYTES = 1024 * 1024
"""How much of a deflated data set is inflated: routing's elements stand at its head."""

MAX_VALUE_BYTES = 4096
"""Longer values are cut: no attribute that one routes by has more."""

DEFLATED_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

_FIRST_CHUNK = 64 * 1024
_CHUNK = 16 * 1024
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"}
    | {b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
VRS = _LONG_VRS | _SHORT_VRS


@dataclass(frozen=True, slots=True)
class Element:
    """One element's value as it stands in the data set, cut at `MAX_VALUE_BYTES`; `vr` is empty in an implicit VR encoding."""

    vr: str
    value: bytes
    big_endian: bool


@dataclass(frozen=True, slots=True)
class _Header:
    tag: int
    vr: bytes
    length: int
    size: int


class _End(Exception):
    """Nothing more can be read."""


class _Window:
    """The data set as far as it was read: one chunk at a time, within the budget."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._start = 0
        self._chunk = b""
        self._budget = BUDGET_BYTES

    def at(self, position: int, size: int) -> bytes:
        begin = position - self._start
        if begin < 0 or begin + size > len(self._chunk):
            self._fill(position, size)
            begin = 0
        return self._chunk[begin : begin + size]

    def _fill(self, position: int, size: int) -> None:
        wanted = max(size, _FIRST_CHUNK if position == 0 else _CHUNK)
        self._budget -= wanted
        if self._budget < 0:
            raise _End
        self._start, self._chunk = position, self._read(position, wanted)


def inflated(read: Reader, transfer_syntax_uid: str) -> Reader:
    """Return a reader of what `read` holds deflated, at most `MAX_INFLATED_BYTES` of it; `read` itself for other syntaxes."""
    if transfer_syntax_uid != DEFLATED_EXPLICIT_LITTLE:
        return read
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(read(0, MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    except zlib.error:
        data = b""
    return lambda offset, size: data[offset : offset + size]


def scan(read: Reader, tags: Collection[int], *, big_endian: bool = False) -> dict[int, Element]:
    """Return those of `tags` that stand at the top level of the data set, as far as it can be read.

    Whether VRs are explicit is seen from the first element: devices label it wrongly.
    """
    found: dict[int, Element] = {}
    window = _Window(read)
    last = max(tags, default=-1)
    try:
        explicit = window.at(0, 6)[4:6] in VRS
        position = 0
        while (header := _header(window, position, explicit=explicit, big_endian=big_endian)).tag <= last:
            position += header.size
            if header.tag in tags and header.length != _UNDEFINED:
                value = window.at(position, min(header.length, MAX_VALUE_BYTES))
                found[header.tag] = Element(header.vr.decode("ascii"), value, big_endian)
            position = _behind(window, position, header, explicit=explicit, big_endian=big_endian)
    except (_End, struct.error):
        return found
    return found


def _header(window: _Window, position: int, *, explicit: bool, big_endian: bool) -> _Header:
    order = ">" if big_endian else "<"
    data = window.at(position, 12)
    group, element = struct.unpack_from(order + "HH", data)
    tag = group << 16 | element
    if not explicit or group == 0xFFFE:
        return _Header(tag, b"", struct.unpack_from(order + "L", data, 4)[0], 8)
    vr = data[4:6]
    if vr in _LONG_VRS:
        return _Header(tag, vr, struct.unpack_from(order + "L", data, 8)[0], 12)
    if vr not in _SHORT_VRS:
        raise _End
    return _Header(tag, vr, struct.unpack_from(order + "H", data, 6)[0], 8)


def _behind(window: _Window, position: int, header: _Header, *, explicit: bool, big_endian: bool) -> int:
    """Return the position behind the value that begins at `position`, walking through what has no length."""
    if header.length != _UNDEFINED:
        return position + header.length
    # For each sequence and item that is open: whether VRs in it are explicit.
    open_levels = [_explicit_within(header, explicit=explicit)]
    while open_levels:
        inner = _header(window, position, explicit=open_levels[-1], big_endian=big_endian)
        position += inner.size
        if inner.tag in (_ITEM_END, _SEQUENCE_END):
            open_levels.pop()
        elif inner.length == _UNDEFINED:
            open_levels.append(_explicit_within(inner, explicit=open_levels[-1]))
        else:
            position += inner.length
    return position


def _explicit_within(header: _Header, *, explicit: bool) -> bool:
    # PS3.5 §6.2.2: what a UN of undefined length holds is implicit VR, whatever is around it.
    return explicit and header.vr != b"UN"
