"""One walk over a data set: what it says about its pixels, where they are, and where elements belong that transcoding sets."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gateway.codec.dataset.extent import Extent, Window
from gateway.codec.dataset.headers import DOUBLE_FLOAT_PIXEL_DATA, EXPLICIT, FLOAT_PIXEL_DATA, PIXEL_DATA, Element, Encoding, Walker
from gateway.codec.dataset.vrs import swapped
from gateway.codec.pixels import attributes
from gateway.core.errors import NotTranscodable

_ICON_IMAGE_SEQUENCE = 0x00880200
_MAX_ATTRIBUTE_BYTES = 64
_PIXEL_GROUP = 0x7FE00000
_SET_BY_US = (attributes.PHOTOMETRIC_INTERPRETATION, attributes.PLANAR_CONFIGURATION, attributes.LOSSY_IMAGE_COMPRESSION)
_GROUP_LENGTH_28 = 0x00280000


@dataclass(slots=True)
class Survey:
    """The findings at the top level of a data set.

    `values` are attributes of the pixels, numbers as Little Endian; `places` where elements begin and end that may be replaced; and
    `inserts`, for each element that may have to be added, the first byte of the element before which it belongs.
    """

    walker: Walker
    values: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, tuple[Element, int]] = field(default_factory=dict)
    inserts: dict[int, int] = field(default_factory=dict)
    compressed_icon: bool = False

    @property
    def pixel_data(self) -> Element | None:
        """The Pixel Data element (7FE0,0010), where there is one."""
        place = self.places.get(PIXEL_DATA)
        return place[0] if place else None

    @property
    def has_pixels(self) -> bool:
        """True where there is pixel data of any kind."""
        return any(tag in self.places for tag in (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA))

    def value(self, tag: int) -> bytes:
        """Return the value at the place of `tag`, empty where there is none or it has no length."""
        if tag not in self.places or self.places[tag][0].undefined:
            return b""
        element = self.places[tag][0]
        return self.walker.window.extent.read(element.value, element.length)


def survey(source: Extent, encoding: Encoding = EXPLICIT) -> Survey:
    """Walk over the data set `source`.

    Raises:
        NotTranscodable: it is not encoded as `encoding` says, or has an element twice that may stand there once.
        OSError: it cannot be read.
    """
    found = Survey(Walker(Window(source)))
    for element, behind in found.walker.data_set(encoding):
        _note(found, element, behind, encoding)
    for tag in _SET_BY_US:
        found.inserts.setdefault(tag, source.length)
    return found


def _note(found: Survey, element: Element, behind: int, encoding: Encoding) -> None:
    tag = element.tag
    for wanted in _SET_BY_US:
        if tag >= wanted:
            found.inserts.setdefault(wanted, element.start)
    if tag in attributes.WANTED or tag == _GROUP_LENGTH_28 or tag >> 16 == _PIXEL_GROUP >> 16:
        if tag in found.places:
            raise NotTranscodable(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands there twice")
        found.places[tag] = (element, behind)
    if tag in attributes.WANTED and not element.undefined:
        value = found.walker.window.at(element.value, min(element.length, _MAX_ATTRIBUTE_BYTES))
        is_number = tag not in (
            attributes.PHOTOMETRIC_INTERPRETATION,
            attributes.NUMBER_OF_FRAMES,
            attributes.LOSSY_IMAGE_COMPRESSION,
        )
        found.values[tag] = swapped(value, 2) if encoding.big_endian and is_number else value
    if tag == _ICON_IMAGE_SEQUENCE:
        found.compressed_icon = _holds_compressed_pixels(found.walker, element, encoding)


def _holds_compressed_pixels(walker: Walker, sequence: Element, encoding: Encoding) -> bool:
    for item, behind in walker.items(sequence, encoding, walker.end):
        position = item.value
        end = behind if item.undefined else item.value + item.length
        while position < end:
            element = walker.header(position, encoding, end)
            if element.tag == PIXEL_DATA and element.undefined:
                return True
            position = walker.behind(element, encoding, end)
    return False


def group_length(found: Survey) -> tuple[Element, int] | None:
    """Return the Group Length (0028,0000) and its value, where the data set has one."""
    value = found.value(_GROUP_LENGTH_28)
    return (found.places[_GROUP_LENGTH_28][0], struct.unpack("<L", value)[0]) if len(value) == 4 else None
