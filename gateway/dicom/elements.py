"""Finding a few elements at the top level of a data set without decoding it (PS3.5 §7). Pure but for the reader it is given.

Written for bytes that nobody checked: no recursion, no warnings that quote values, memory for one chunk. Values and sequences with
a length are skipped, whatever that is; sequences without one are walked through. The scan ends behind the last wanted tag where all
came in the order of their tags; else it goes on to the end of the data set, because some writers do not sort. Where it has to end
before that, `Scan.ended` says why. Headers are parsed in place, in whatever memory the data set's beginning lies: it is done for
each instance on its association's thread.

VRs, items and the layout of headers stand here once. Three readers build on them, because they owe different things. This one
finds a few elements in whatever a device wrote, and goes on as long as anything can be made of it.
`gateway.association.dimse.identifier` hands the whole of a small data set to pydicom, and so has to know how deeply it nests, and
to give up where it is broken. `gateway.codec.dataset.headers` rewrites a data set, and therefore takes nothing that the transfer
syntax does not allow: a guess would be written down as if it were so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

Reader = Callable[[int, int], bytes]
"""`read(offset, size)` returns up to `size` bytes of the data set from `offset`; fewer only at its end."""

MAX_HEADERS = 2_000_000
"""Headers read before a scan is given up: two seconds' work, and many times what stands before the UIDs of a real instance."""

MAX_VALUE_BYTES = 4096
"""Longer values are cut: no attribute that one routes by has more."""

UNDEFINED = 0xFFFFFFFF
"""The length of what ends with a delimiter instead (PS3.5 §7.1.1)."""

LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs whose length has four bytes (PS3.5 §7.1.2)."""

SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT"}
    | {b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
VRS = LONG_VRS | SHORT_VRS

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_GROUP = 0xFFFE
CHARACTER_SET = 0x00080005

_FIRST_CHUNK = 64 * 1024
_CHUNK = 16 * 1024
_NEAR_CHUNK = 1024
"""Read where the next header is far from the last one: most of what follows it is skipped, too."""


def is_vr(vr: bytes) -> bool:
    """Tell whether `vr` has the form of a VR: two capital letters (PS3.5 §6.2)."""
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def element_header(tag: int, vr: bytes, length: int, *, explicit: bool = True) -> bytes:
    """Return the header of an element in Little Endian (PS3.5 §7.1)."""
    group, number = tag >> 16, tag & 0xFFFF
    if not explicit:
        return struct.pack("<HHL", group, number, length)
    if vr in SHORT_VRS:
        return struct.pack("<HH2sH", group, number, vr, length)
    return struct.pack("<HH2sHL", group, number, vr, 0, length)


def of_bytes(data: bytes) -> Reader:
    """Return what reads a file or data set that is `data`."""
    return lambda offset, size: data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Element:
    """One element's value as it stands in the data set, cut at `MAX_VALUE_BYTES`; `vr` is empty in an implicit VR encoding."""

    vr: str
    value: bytes
    big_endian: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan, by tag.

    `ended` says in words why it ended before it knew what is there, and is empty where it did not. `behind` is where the bytes at
    hand ended between two elements: nothing else is to be found unless the data set goes on there.
    """

    found: Mapping[int, Element]
    ended: str = ""
    behind: int | None = None


CUT = "the data set ends within its header"
"""It ends within an element before, or among, those that are looked for."""

CUT_BEHIND = "the data set ends within an element"
TOO_MANY = f"more than {MAX_HEADERS} elements stand before what is looked for"


class _End(Exception):
    """Nothing more can be read; the argument says why."""


class Unread(Exception):
    """The scan needs bytes that are not at hand."""


class Window:
    """The data set as far as it was read: `chunk` holds what begins at `start`; one chunk at a time."""

    def __init__(self, read: Reader, chunk: bytes | memoryview) -> None:
        self.start = 0
        self.chunk = chunk
        self.headers = MAX_HEADERS
        self._read = read

    def at(self, position: int, size: int) -> int:
        """Return where in `chunk` the data set's `size` bytes from `position` are; fewer are there only at its end."""
        begin = position - self.start
        if begin < 0 or begin + size > len(self.chunk):
            chunk = _FIRST_CHUNK if not position else _CHUNK if begin <= len(self.chunk) else _NEAR_CHUNK
            self.start, self.chunk = position, self._read(position, max(size, chunk))
            return 0
        return begin

    def value(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`."""
        begin = self.at(position, size)
        return bytes(self.chunk[begin : begin + size])

    def count(self, headers: int) -> None:
        """Count headers that were read. Raises _End."""
        self.headers -= headers
        if self.headers < 0:
            raise _End(TOO_MANY)

    def ends_at(self, position: int) -> bool:
        """Tell whether the data set ends at `position`, neither before nor behind it."""
        return not self._read(position, 1) and (not position or bool(self._read(position - 1, 1)))


def unread(offset: int, size: int) -> bytes:
    """Read nothing: for what must be found in the beginning that is at hand.

    Raises:
        Unread: always.

    """
    raise Unread


def scan(  # noqa: PLR0911, PLR0912 - one loop, on the data path
    read: Reader,
    tags: Collection[int],
    *,
    needed: Collection[int] = (),
    big_endian: bool = False,
    beginning: bytes | memoryview = b"",
) -> Scan:
    """Return those of `tags` that stand at the top level of the data set, as far as it can be read.

    The last one counts, of those that stand there twice. Without one of those `needed` the scan goes on behind the last of `tags`:
    it may stand anywhere in a data set that is not sorted. `beginning` is how the data set begins, where that is at hand; `read` is
    asked for the rest. Whether VRs are explicit is seen from the first element: devices label it wrongly.

    Raises:
        Unread: `read` is `unread`, and the beginning ends within an element; and whatever else `read` raises.

    """
    found: dict[int, Element] = {}
    window = Window(read, beginning)
    last = max(tags, default=-1)
    position = previous = 0
    sorted_so_far = True
    try:
        explicit = _is_explicit(window, 0)
        header = HEADERS[big_endian, explicit]
        common = explicit and not big_endian
        for _ in range(MAX_HEADERS):
            begin = position - window.start
            if common and begin + 12 <= len(window.chunk):
                # As `header` does it, without its calls: most elements of most instances are read here.
                group, number, vr, length = _COMMON(window.chunk, begin)
                tag, size = group << 16 | number, 8
                if vr in LONG_VRS and group != _ITEM_GROUP:
                    (length,), size = _LENGTH(window.chunk, begin + 8), 12
                elif vr not in SHORT_VRS or group == _ITEM_GROUP:
                    tag, vr, length, size = header(window, position)
            else:
                tag, vr, length, size = header(window, position)
            if tag > last:
                if sorted_so_far and all(each in found for each in needed):
                    return Scan(found)
            elif tag < previous:
                sorted_so_far = False
            previous = tag
            if length == UNDEFINED:
                position = _behind(window, position + size, big_endian, header)
                continue
            if tag in tags:
                size_wanted = min(length, MAX_VALUE_BYTES)
                value = window.value(position + size, size_wanted)
                if len(value) < size_wanted:
                    return Scan(found, CUT)
                found[tag] = Element(vr.decode("latin-1"), value, big_endian)
            position += size + length
        return Scan(found, TOO_MANY)
    except _End as end:
        return Scan(found, str(end))
    except struct.error:
        if window.ends_at(position):
            return Scan(found)
        return Scan(found, CUT if previous <= last else CUT_BEHIND)
    except Unread:
        if position < len(beginning):
            raise
        return Scan(found, behind=position)


_COMMON = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<L").unpack_from

_Header = Callable[[Window, int], tuple[int, bytes, int, int]]
"""Returns tag, VR, length of the value and size of the header of the element that begins at a position."""


def _implicit(order: str) -> _Header:
    """Return the reader of headers in Implicit VR (PS3.5 §7.1.3) of this byte order; the VR is empty."""
    unpack = struct.Struct(order + "HHL").unpack_from

    def header(window: Window, position: int) -> tuple[int, bytes, int, int]:
        begin = window.at(position, 8)
        group, element, length = unpack(window.chunk, begin)
        return group << 16 | element, b"", length, 8

    return header


def _explicit(order: str) -> _Header:
    """Return the reader of headers in Explicit VR (PS3.5 §7.1.2) of this byte order.

    A VR that is not known has a short length. Other bytes mean no VR: items, and elements of writers that switch to Implicit VR.
    """
    unpack, unpack_length = struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "L").unpack_from

    def header(window: Window, position: int) -> tuple[int, bytes, int, int]:
        begin = window.at(position, 12)
        group, element, vr, length = unpack(window.chunk, begin)
        tag = group << 16 | element
        if group != _ITEM_GROUP:
            if vr in SHORT_VRS:
                return tag, vr, length, 8
            if vr in LONG_VRS:
                return tag, vr, unpack_length(window.chunk, begin + 8)[0], 12
            # Wider than `is_vr`, as pydicom reads it: a broken VR ("A5") has a length behind it, too.
            if b"AA" <= vr <= b"ZZ":
                return tag, vr, length, 8
        return tag, b"", unpack_length(window.chunk, begin + 4)[0], 8

    return header


HEADERS: dict[tuple[bool, bool], _Header] = {
    (big_endian, explicit): (_explicit if explicit else _implicit)(">" if big_endian else "<")
    for big_endian in (False, True)
    for explicit in (False, True)
}
"""Readers of headers, by whether the data set is Big Endian and has VRs; they raise struct.error where the bytes end."""


def _is_explicit(window: Window, position: int) -> bool:
    """Tell whether the data set at `position` begins with an element that has a VR: two capital letters."""
    return is_vr(window.value(position, 6)[4:])


def _behind(window: Window, position: int, big_endian: bool, header: _Header) -> int:
    """Return the position behind a value without length that begins at `position`, of an element read by `header`."""
    implicit = HEADERS[big_endian, False]
    # For the sequence and the item, by turns, that are open: how headers of elements in it are read.
    open_levels = [header]
    headers = 0
    while open_levels:
        within, in_item = open_levels[-1], len(open_levels) % 2 == 0
        tag, _, length, size = (within if in_item else implicit)(window, position)
        headers += 1
        if headers > window.headers:
            break
        position += size
        if tag == (ITEM_END if in_item else SEQUENCE_END):
            open_levels.pop()
        elif length != UNDEFINED:
            position += length
        elif in_item or within is implicit:
            open_levels.append(within)
        else:
            # Within a UN it is Implicit VR (PS3.5 §6.2.2), unless a writer did not know; some switch to it in any sequence.
            open_levels.append(HEADERS[big_endian, _is_explicit(window, position)])
    window.count(headers)
    return position


def behind_undefined(read: Reader, position: int) -> int | None:
    """Return the position behind a value without length that begins at `position`, of an element in Explicit VR Little Endian.

    None where it does not end.
    """
    window = Window(read, b"")
    try:
        return _behind(window, position, False, HEADERS[False, True])
    except (_End, struct.error):
        return None
