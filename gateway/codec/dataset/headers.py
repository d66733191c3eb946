"""The elements of a data set as they stand in the bytes (PS3.5 §7): headers read, values skipped. Nothing is decoded.

Written for bytes that nobody checked: no recursion, every length held against the end, and a bound on how many elements one data
set may have. Bytes that are not as PS3.5 says raise `NotTranscodable`, because the result could not be foreseen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.codec.dataset.extent import Window
from gateway.core.errors import NotTranscodable
from gateway.dicom.elements import ITEM, ITEM_END, LONG_VRS, SEQUENCE_END, SHORT_VRS, UNDEFINED, is_vr

PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009

MAX_ELEMENTS = 5_000_000
"""No real data set comes near it; walking this many takes some seconds."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of headers and numbers."""

    explicit: bool
    big_endian: bool = False

    @property
    def order(self) -> str:
        """The byte order as `struct` writes it."""
        return ">" if self.big_endian else "<"


IMPLICIT = Encoding(explicit=False)
EXPLICIT = Encoding(explicit=True)


@dataclass(frozen=True, slots=True)
class Element:
    """One element's header: `start` is its first byte, `value` the first byte of its value; `vr` is empty where it is implicit."""

    tag: int
    vr: bytes
    start: int
    value: int
    length: int

    @property
    def undefined(self) -> bool:
        """True where the value ends with a delimiter instead of having a length."""
        return self.length == UNDEFINED


class Walker:
    """Reads elements of the data set that `window` shows."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.end = window.extent.length
        self._budget = MAX_ELEMENTS

    def header(self, position: int, encoding: Encoding, end: int) -> Element:
        """Return the element that begins at `position`; its value, where it has a length, ends before `end`.

        Raises:
            NotTranscodable: there is no element.
        """
        self._budget -= 1
        if self._budget < 0:
            raise NotTranscodable(f"the data set has more than {MAX_ELEMENTS} elements")
        data = self.window.at(position, 12)
        if len(data) < 8:
            raise NotTranscodable("the data set ends within an element")
        element = _parse(data, position, encoding)
        if element is None:
            group, number = struct.unpack_from(encoding.order + "HH", data)
            raise NotTranscodable(f"({group:04X},{number:04X}) has no VR: the data set is not encoded as its transfer syntax says")
        if element.value > end or (not element.undefined and element.value + element.length > end):
            raise NotTranscodable(f"{tag_name(element.tag)} is longer than what it stands in")
        return element

    def data_set(self, encoding: Encoding) -> Iterator[tuple[Element, int]]:
        """Yield each element of the top level with the position behind it."""
        position = 0
        while position < self.end:
            element = self.header(position, encoding, self.end)
            position = self.behind(element, encoding, self.end)
            yield element, position

    def behind(self, element: Element, encoding: Encoding, end: int) -> int:
        """Return the position behind `element`, walking through what has no length."""
        if not element.undefined:
            return element.value + element.length
        position = element.value
        levels = [inner_encoding(element, encoding)]
        while levels:
            inner = self.header(position, levels[-1], end)
            position = inner.value
            if inner.tag in (ITEM_END, SEQUENCE_END):
                levels.pop()
            elif inner.undefined:
                levels.append(inner_encoding(inner, levels[-1]))
            else:
                position += inner.length
        return position

    def items(self, element: Element, encoding: Encoding, end: int) -> Iterator[tuple[Element, int]]:
        """Yield each item of the sequence (or fragment of the pixel data) `element` with the position behind it.

        Raises:
            NotTranscodable: something stands there that is no item.
        """
        limit = end if element.undefined else element.value + element.length
        position = element.value
        while position < limit:
            item = self.header(position, encoding, limit)
            if item.tag == SEQUENCE_END and element.undefined:
                return
            if item.tag != ITEM:
                raise NotTranscodable(f"{tag_name(element.tag)} holds {tag_name(item.tag)} where an item belongs")
            position = self.behind(item, encoding, limit)
            yield item, position
        if element.undefined:
            raise NotTranscodable(f"{tag_name(element.tag)} does not end")


def inner_encoding(element: Element, encoding: Encoding) -> Encoding:
    """Return how what is in `element` is encoded: implicit in a UN of undefined length, whatever is around it (PS3.5 §6.2.2)."""
    return IMPLICIT if element.vr == b"UN" else encoding


def tag_name(tag: int) -> str:
    """Return a tag as people write it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _parse(data: bytes, position: int, encoding: Encoding) -> Element | None:
    order = encoding.order
    group, number = struct.unpack_from(order + "HH", data)
    tag = group << 16 | number
    if not encoding.explicit or group == 0xFFFE:
        return Element(tag, b"", position, position + 8, struct.unpack_from(order + "L", data, 4)[0])
    vr = data[4:6]
    if vr in SHORT_VRS:
        return Element(tag, vr, position, position + 8, struct.unpack_from(order + "H", data, 6)[0])
    # A VR that is not known yet has the long form (PS3.5 §7.1.2), of which the two reserved bytes are the mark.
    if vr in LONG_VRS or (is_vr(vr) and data[6:8] == b"\0\0"):
        if len(data) < 12:
            return None
        return Element(tag, vr, position, position + 12, struct.unpack_from(order + "L", data, 8)[0])
    return None
