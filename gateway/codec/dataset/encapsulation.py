"""Encapsulated pixel data (PS3.5 §A.4): which fragments make up which frame, and writing fragments with their offset tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.codec.dataset.extent import Output
from gateway.codec.dataset.headers import EXPLICIT, PIXEL_DATA, Element, Walker
from gateway.core.errors import NotTranscodable
from gateway.dicom.elements import ITEM, SEQUENCE_END, UNDEFINED, element_header

EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00001, 0x7FE00002

Range = tuple[int, int]
"""The place of bytes: offset and length."""

_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""The first bytes of a JPEG, JPEG-LS or JPEG 2000 codestream, the last within a JP2 file."""

_MAX_FRAGMENT_BYTES = 0xFFFFFFFE


def frames_of(walker: Walker, pixel_data: Element, frames: int, extended: bytes) -> list[list[Range]]:
    """Return, for each frame, where its fragments lie in the data set.

    Args:
        walker: shows the data set, in Explicit VR Little Endian headers.
        pixel_data: its encapsulated Pixel Data (7FE0,0010).
        frames: how many frames there are.
        extended: the value of the Extended Offset Table (7FE0,0001), empty where there is none.

    Raises:
        NotTranscodable: nobody could tell which fragments belong to which frame.
    """
    items = (item for item, _ in walker.items(pixel_data, EXPLICIT, walker.end))
    table = next(items, None)
    fragments = list(items)
    if table is None or table.undefined or any(fragment.undefined for fragment in fragments):
        raise NotTranscodable("the encapsulated pixel data has no Basic Offset Table or a fragment without a length")
    if frames == 1 and fragments:
        return [[_range(fragment) for fragment in fragments]]
    offsets = _offsets(extended, "Q") or _offsets(walker.window.extent.read(table.value, table.length), "L")
    starts = _starts(walker, fragments, frames, offsets)
    if len(starts) != frames:
        raise NotTranscodable(f"{len(fragments)} fragments that cannot be told apart into {frames} frames")
    return [[_range(fragment) for fragment in fragments[begin:end]] for begin, end in _pairs(starts, len(fragments))]


def _offsets(table: bytes, code: str) -> list[int]:
    size = struct.calcsize("<" + code)
    return [offset for (offset,) in struct.iter_unpack("<" + code, table[: len(table) // size * size])]


def _starts(walker: Walker, fragments: Sequence[Element], frames: int, offsets: Sequence[int]) -> list[int]:
    """Return the index of each frame's first fragment: one each, else by the offset table, else by how codestreams begin."""
    if len(fragments) == frames:
        return list(range(frames))
    if len(fragments) < frames:
        return []
    if offsets:
        index = {fragment.start - fragments[0].start: number for number, fragment in enumerate(fragments)}
        found = [index.get(offset, -1) for offset in offsets]
        sound = found[0] == 0 and all(one < other for one, other in pairwise(found))
        return found if sound else []
    return [number for number, fragment in enumerate(fragments) if walker.window.at(fragment.value, 8).startswith(_STARTS)]


def _pairs(starts: Sequence[int], end: int) -> Iterator[tuple[int, int]]:
    return zip(starts, [*starts[1:], end], strict=True)


def _range(fragment: Element) -> Range:
    return fragment.value, fragment.length


@dataclass(slots=True)
class EncapsulatedWriter:
    """Writes Pixel Data of one fragment a frame, with a Basic Offset Table or, where that could overflow, an extended one.

    Use: `begin`, `add` for each frame in order, `end`.
    """

    output: Output
    frames: int
    extended: bool
    _first: int = 0
    _tables: int = 0
    _offsets: list[int] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """Write what stands before the first fragment, the tables still empty."""
        room = bytes(8 * self.frames)
        if self.extended:
            self._tables = self.output.position
            for tag in (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS):
                self.output.write(element_header(tag, b"OV", len(room)) + room)
        self.output.write(element_header(PIXEL_DATA, b"OB", UNDEFINED))
        basic = b"" if self.extended else bytes(4 * self.frames)
        self.output.write(element_header(ITEM, b"", len(basic), explicit=False) + basic)
        self._first = self.output.position

    def add(self, frame: bytes) -> None:
        """Write one frame as one fragment, padded to an even length.

        Raises:
            NotTranscodable: the frame is too long for one fragment, or all are for the table.
        """
        length = len(frame) + len(frame) % 2
        offset = self.output.position - self._first
        if length > _MAX_FRAGMENT_BYTES or (offset > UNDEFINED and not self.extended):
            raise NotTranscodable("the compressed pixel data is too long for its offset table")
        self._offsets.append(offset)
        self._lengths.append(length)
        self.output.write(element_header(ITEM, b"", length, explicit=False))
        self.output.write(frame)
        self.output.write(bytes(len(frame) % 2))

    def end(self) -> None:
        """Write the delimiter and fill in the tables."""
        self.output.write(element_header(SEQUENCE_END, b"", 0, explicit=False))
        if not self.extended:
            self.output.patch(self._first - 4 * self.frames, struct.pack(f"<{self.frames}L", *self._offsets))
            return
        self.output.patch(self._tables + 12, struct.pack(f"<{self.frames}Q", *self._offsets))
        self.output.patch(self._tables + 24 + 8 * self.frames, struct.pack(f"<{self.frames}Q", *self._lengths))
