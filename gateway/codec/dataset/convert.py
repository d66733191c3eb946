"""Writing a data set with other headers: implicit VR to explicit VR and back, Big Endian to Little Endian (PS3.5 §A.1 to §A.3).

Only headers, the byte order of numbers, and the lengths that follow from both change; sequences keep the form of their lengths.
Values are copied, in order, whatever they are. Written in one pass with memory for one element's header: lengths of sequences
and groups are corrected once what they count is written, and VRs once the element that decides them was met.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field

from gateway.codec.dataset.extent import COPY_BYTES, Extent, Output, Window
from gateway.codec.dataset.headers import Element, Encoding, Walker, tag_name
from gateway.codec.dataset.vrs import DECIDERS, WORD_BYTES, decided_vr, decider, implicit_vr, swapped
from gateway.core.errors import NotTranscodable
from gateway.dicom.elements import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, element_header

MAX_DEPTH = 64
"""The greatest depth to which sequences may be nested."""


def convert(source: Extent, before: Encoding, after: Encoding, output: Output) -> None:
    """Write the data set `source`, encoded as `before`, to `output` as `after`, which is Little Endian.

    Args:
        source: the data set; no pixel data in it is encapsulated.
        before: how it is encoded.
        after: how it is to be encoded.
        output: where to; appended to.

    Raises:
        NotTranscodable: it is not encoded as `before` says.
        OSError: the file cannot be read or written.
    """
    walker = Walker(Window(source))
    _Conversion(walker, before, after, output).data_set(0, walker.end, depth=0, around=None, delimited=False)


@dataclass(slots=True)
class _Groups:
    """The group length that stands at the head of the group at hand, and how much longer the group became than it was."""

    group: int = -1
    position: int = -1
    """The position at which its value was written; -1 where the group has none."""

    length: int = 0
    begin_before: int = 0
    begin_after: int = 0


@dataclass(slots=True)
class _Choices:
    """The VRs that one level of the data set decides on, and those that wait for it (PS3.5 §A.1, PS3.3 §C.7.6.3).

    By the tag of the element that decides: what it said, and where the VRs stand in the output that it has not decided yet.
    """

    decided: dict[int, bytes] = field(default_factory=dict)
    waiting: dict[int, array[int]] = field(default_factory=dict)

    def wait(self, tag: int, position: int) -> None:
        """Have the VR at `position` decided once the element `tag` was met, here or around here."""
        self.waiting.setdefault(tag, array("Q")).append(position)

    def close(self, around: _Choices | None, output: Output) -> None:
        """Write what was decided, and leave the rest to the level around this one; at the top it stays as it was written."""
        for tag, positions in self.waiting.items():
            vr = self.decided.get(tag) or (around.decided.get(tag) if around else None)
            if vr is not None:
                for position in positions:
                    output.patch(position, vr)
            elif around is not None:
                around.waiting.setdefault(tag, array("Q")).extend(positions)


@dataclass(slots=True)
class _Conversion:
    walker: Walker
    before: Encoding
    after: Encoding
    output: Output

    def data_set(self, position: int, end: int, *, depth: int, around: _Choices | None, delimited: bool) -> int:
        """Write the elements from `position` on, to `end` or to the item's delimiter; returns the position behind them."""
        if depth > MAX_DEPTH:
            raise NotTranscodable(f"sequences stand in each other more than {MAX_DEPTH} deep")
        groups, choices = _Groups(), _Choices()
        while position < end:
            element = self.walker.header(position, self.before, end)
            if element.tag == ITEM_END and delimited:
                self._close(groups, position)
                choices.close(around, self.output)
                self._delimiter(ITEM_END)
                return element.value
            self._follow(groups, element)
            if element.tag in DECIDERS and not self.before.explicit:
                vr = decided_vr(element.tag, self.walker.window.at(element.value, min(element.length, 4)))
                choices.decided |= {element.tag: vr} if vr else {}
            position = self._element(element, end, depth=depth, choices=choices)
        if delimited:
            raise NotTranscodable("an item does not end")
        self._close(groups, position)
        choices.close(around, self.output)
        return position

    def _follow(self, groups: _Groups, element: Element) -> None:
        """Keep count for the group length (gggg,0000), which is corrected by as much as the group grows."""
        group = element.tag >> 16
        if group == groups.group:
            return
        self._close(groups, element.start)
        groups.group, groups.position = group, -1
        if element.tag & 0xFFFF == 0 and element.length == 4 and element.vr in (b"", b"UL"):
            (groups.length,) = struct.unpack(self.before.order + "L", self.walker.window.at(element.value, 4))
            groups.begin_before = element.value + 4
            groups.position = self.output.position + len(element_header(element.tag, b"UL", 4, explicit=self.after.explicit))
            groups.begin_after = groups.position + 4

    def _close(self, groups: _Groups, position: int) -> None:
        if groups.position >= 0:
            grown = (self.output.position - groups.begin_after) - (position - groups.begin_before)
            self.output.patch(groups.position, struct.pack("<L", (groups.length + grown) & UNDEFINED))
            groups.position = -1

    def _vr(self, element: Element, choices: _Choices) -> bytes:
        """Return the VR to write for `element`; where that is not decided yet, it is corrected later."""
        if self.before.explicit:
            return element.vr
        # An element without length that is not known is a private sequence: its items stay implicit in UN (PS3.5 §6.2.2).
        vr = implicit_vr(element.tag, 0 if element.undefined else element.length)
        by = decider(element.tag)
        if by is None or vr == b"UN":
            return vr
        if by not in choices.decided:
            choices.wait(by, self.output.position + 4)
        return choices.decided.get(by, vr)

    def _element(self, element: Element, end: int, *, depth: int, choices: _Choices) -> int:
        vr = self._vr(element, choices)
        if element.undefined and vr not in (b"SQ", b"UN"):
            raise NotTranscodable(f"{tag_name(element.tag)} is encapsulated in a data set that is not")
        if vr == b"SQ":
            return self._sequence(element, end, depth=depth, around=choices)
        behind = self.walker.behind(element, self.before, end)
        self._header(element.tag, vr, element.length)
        word = WORD_BYTES.get(vr, 1)
        if self.before.big_endian != self.after.big_endian and word > 1:
            self._copy_swapped(element.value, behind, word)
        else:
            self.output.copy(self.walker.window.extent, element.value, behind)
        return behind

    def _copy_swapped(self, begin: int, end: int, word: int) -> None:
        for position in range(begin, end, COPY_BYTES):
            size = min(COPY_BYTES, end - position)
            self.output.write(swapped(self.walker.window.extent.read(position, size), word))

    def _sequence(self, element: Element, end: int, *, depth: int, around: _Choices) -> int:
        self._header(element.tag, b"SQ", element.length)
        begin = self.output.position
        limit = end if element.undefined else element.value + element.length
        position = element.value
        while position < limit:
            item = self.walker.header(position, self.before, limit)
            if item.tag == SEQUENCE_END and element.undefined:
                self._delimiter(SEQUENCE_END)
                return item.value
            if item.tag != ITEM:
                raise NotTranscodable(f"{tag_name(element.tag)} holds {tag_name(item.tag)} where an item belongs")
            position = self._item(item, limit, depth=depth, around=around)
        if element.undefined:
            raise NotTranscodable(f"{tag_name(element.tag)} does not end")
        self._correct_length(begin)
        return position

    def _item(self, item: Element, limit: int, *, depth: int, around: _Choices) -> int:
        self.output.write(element_header(ITEM, b"", item.length, explicit=False))
        begin = self.output.position
        end = limit if item.undefined else item.value + item.length
        position = self.data_set(item.value, end, depth=depth + 1, around=around, delimited=item.undefined)
        if not item.undefined:
            self._correct_length(begin)
        return position

    def _delimiter(self, tag: int) -> None:
        self.output.write(element_header(tag, b"", 0, explicit=False))

    def _correct_length(self, begin: int) -> None:
        length = self.output.position - begin
        if length >= UNDEFINED:
            raise NotTranscodable("a sequence becomes too long")
        self.output.patch(begin - 4, struct.pack("<L", length))

    def _header(self, tag: int, vr: bytes, length: int) -> None:
        self.output.write(element_header(tag, vr, length, explicit=self.after.explicit))
