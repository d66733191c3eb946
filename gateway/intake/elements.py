"""Finding a few elements at the top level of a data set without decoding it (PS3.5 §7). Pure but for the reader it is given.

Written for bytes that nobody checked: no recursion, no warnings that quote values, at most `BUDGET_BYTES` read whatever the
lengths claim. Values are skipped, not read; the scan ends behind the last wanted tag. What cannot be read ends the scan, and
what was found until then is returned. Headers are parsed in place, in whatever memory the data set's beginning lies: it is done for
each instance on its association's thread.
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
_ITEM_GROUP, _ITEM_END, _SEQUENCE_END = 0xFFFE, 0xFFFEE00D, 0xFFFEE0DD
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


class _End(Exception):
    """Nothing more can be read."""


class Unread(Exception):
    """The scan needs bytes that are not at hand."""


class _Window:
    """The data set as far as it was read: `chunk` holds what begins at `start`; one chunk at a time, within the budget."""

    def __init__(self, read: Reader, chunk: bytes | memoryview) -> None:
        self.start = 0
        self.chunk = chunk
        self._read = read
        self._budget = BUDGET_BYTES

    def at(self, position: int, size: int) -> int:
        """Return where in `chunk` the data set's `size` bytes from `position` are; fewer are there only at its end."""
        begin = position - self.start
        if begin < 0 or begin + size > len(self.chunk):
            wanted = max(size, _CHUNK if position else _FIRST_CHUNK)
            self._budget -= wanted
            if self._budget < 0:
                raise _End
            self.start, self.chunk = position, self._read(position, wanted)
            return 0
        return begin

    def value(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`."""
        begin = self.at(position, size)
        return bytes(self.chunk[begin : begin + size])


def inflated(read: Reader, transfer_syntax_uid: str) -> Reader:
    """Return a reader of what `read` holds deflated, at most `MAX_INFLATED_BYTES` of it; `read` itself for other syntaxes."""
    if transfer_syntax_uid != DEFLATED_EXPLICIT_LITTLE:
        return read
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(read(0, MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    except zlib.error:
        data = b""
    return lambda offset, size: data[offset : offset + size]


def unread(offset: int, size: int) -> bytes:
    """Read nothing: for what must be found in the beginning that is at hand.

    Raises:
        Unread: always.

    """
    raise Unread


def scan(
    read: Reader, tags: Collection[int], *, big_endian: bool = False, beginning: bytes | memoryview = b""
) -> dict[int, Element]:
    """Return those of `tags` that stand at the top level of the data set, as far as it can be read.

    `beginning` is how the data set begins, where that is at hand; `read` is asked for the rest. Whether VRs are explicit is seen
    from the first element: devices label it wrongly.

    Raises:
        Unread: `read` is `unread`, and the beginning is not enough; and whatever else `read` raises.

    """
    found: dict[int, Element] = {}
    window = _Window(read, beginning)
    last = max(tags, default=-1)
    position = 0
    try:
        header = _HEADERS[big_endian, _is_explicit(window, 0)]
        while True:
            tag, vr, length, size = header(window, position)
            if tag > last:
                return found
            position += size
            if length == _UNDEFINED:
                position = _behind(window, position, big_endian, header)
                continue
            if tag in tags:
                found[tag] = Element(vr.decode("latin-1"), window.value(position, min(length, MAX_VALUE_BYTES)), big_endian)
            position += length
    except (_End, struct.error):
        return found


_Header = Callable[[_Window, int], tuple[int, bytes, int, int]]
"""Returns tag, VR, length of the value and size of the header of the element that begins at a position."""


def _implicit(order: str) -> _Header:
    """Return the reader of headers in Implicit VR (PS3.5 §7.1.3) of this byte order; the VR is empty."""
    unpack = struct.Struct(order + "HHL").unpack_from

    def header(window: _Window, position: int) -> tuple[int, bytes, int, int]:
        begin = window.at(position, 8)
        group, element, length = unpack(window.chunk, begin)
        return group << 16 | element, b"", length, 8

    return header


def _explicit(order: str) -> _Header:
    """Return the reader of headers in Explicit VR (PS3.5 §7.1.2) of this byte order.

    A VR that is not known has a short length. What is none has no VR: items, and elements of writers that switch to Implicit VR.
    """
    unpack, unpack_length = struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "L").unpack_from

    def header(window: _Window, position: int) -> tuple[int, bytes, int, int]:
        begin = window.at(position, 12)
        group, element, vr, length = unpack(window.chunk, begin)
        tag = group << 16 | element
        if group != _ITEM_GROUP:
            if vr in _SHORT_VRS:
                return tag, vr, length, 8
            if vr in _LONG_VRS:
                return tag, vr, unpack_length(window.chunk, begin + 8)[0], 12
            if b"AA" <= vr <= b"ZZ":
                return tag, vr, length, 8
        return tag, b"", unpack_length(window.chunk, begin + 4)[0], 8

    return header


_HEADERS: dict[tuple[bool, bool], _Header] = {
    (big_endian, explicit): (_explicit if explicit else _implicit)(">" if big_endian else "<")
    for big_endian in (False, True)
    for explicit in (False, True)
}


def _is_explicit(window: _Window, position: int) -> bool:
    """Tell whether the data set at `position` begins with an element that has a VR: two capital letters."""
    vr = window.value(position, 6)[4:]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def _behind(window: _Window, position: int, big_endian: bool, header: _Header) -> int:
    """Return the position behind a value without length that begins at `position`, of an element read by `header`."""
    implicit = _HEADERS[big_endian, False]
    # For the sequence and the item, by turns, that are open: how headers of elements in it are read.
    open_levels = [header]
    while open_levels:
        within, in_item = open_levels[-1], len(open_levels) % 2 == 0
        tag, _, length, size = (within if in_item else implicit)(window, position)
        position += size
        if tag == (_ITEM_END if in_item else _SEQUENCE_END):
            open_levels.pop()
        elif length != _UNDEFINED:
            position += length
        elif in_item or within is implicit:
            open_levels.append(within)
        else:
            # Within a UN it is Implicit VR (PS3.5 §6.2.2), unless a writer did not know; some switch to it in any sequence.
            open_levels.append(_HEADERS[big_endian, _is_explicit(window, position)])
    return position
