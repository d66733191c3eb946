"""File Meta Information (PS3.10 §7.1), read and written: where a Part 10 file's data set begins, and what it is. Pure.

(0002,0000) says where the File Meta Information ends. Writers get it wrong, so it is believed where the elements agree: each of
group 0002, each with a VR, the last one ending there. Without it, and where it is not so, they are read one after another, and what
is no element of group 0002 in Explicit VR is the data set. Of elements that stand there twice the first counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.core.domain import IMPLEMENTATION_CLASS_UID, is_conforming_uid
from gateway.dicom.elements import LONG_VRS, UNDEFINED, VRS, Reader, behind_undefined, element_header, is_vr
from gateway.dicom.syntaxes import IMPLICIT_LITTLE

PREAMBLE_LENGTH = 128
PREFIX = b"DICM"
PREAMBLE = bytes(PREAMBLE_LENGTH) + PREFIX

GROUP_LENGTH, VERSION = 0x0000, 0x0001
SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID = 0x0002, 0x0003, 0x0010
IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION = 0x0012, 0x0013
SOURCE_AE, SENDING_AE, RECEIVING_AE = 0x0016, 0x0017, 0x0018
PRIVATE_CREATOR, PRIVATE_INFORMATION = 0x0100, 0x0102
"""Element numbers of group 0002 (PS3.10 Table 7.1-1)."""

ENDS_WITHIN_HEADER = "ends within its header"

MAX_ELEMENTS = 10_000
_MAX_VALUE_BYTES = 4096
_GROUP = b"\x02\x00"
_VR_OF = {VERSION: b"OB", PRIVATE_INFORMATION: b"OB", IMPLEMENTATION_VERSION: b"SH"}
_VR_OF |= dict.fromkeys((SOURCE_AE, SENDING_AE, RECEIVING_AE), b"AE")
_SPACE_PADDED = frozenset({b"SH", b"AE"})


class CutOff(Exception):
    """The file ends within its File Meta Information, or right behind it."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """The head before a data set: the first value of each element number, each cut at 4096 bytes, from `begin` to `end`.

    `stated_end` is where it ends by its Group Length (0002,0000), None without one. `clean` tells that no reader can take it for
    anything else: that is right, and no element stands there twice.
    """

    values: Mapping[int, bytes]
    begin: int
    end: int
    stated_end: int | None
    clean: bool

    def text(self, number: int) -> str:
        """Return a value without its padding, empty where there is none."""
        return self.values.get(number, b"").decode("latin-1").strip(" \0")


# Reading


@dataclass(frozen=True, slots=True)
class _Element:
    number: int
    value: int
    length: int
    """The length that the header states, which may be `UNDEFINED`."""

    end: int


def meta_in(read: Reader, size: int | None = None) -> FileMeta | None:
    """Return the File Meta Information of the Part 10 file that `read` gives from its first byte; None where it is none.

    Raises:
        CutOff: as `read_meta`.
    """
    if read(PREAMBLE_LENGTH, len(PREFIX)) != PREFIX:
        return None
    return read_meta(read, len(PREAMBLE), size)


def read_meta(read: Reader, begin: int, size: int | None = None) -> FileMeta:
    """Return the File Meta Information whose first element is at `begin` of the file of `size` bytes that `read` gives.

    Where there is none, it ends where it begins. With a `size` there is a data set behind it.

    Raises:
        CutOff: the file ends before its data set begins.
    """
    first = read(begin, 8)
    explicit = first[4:6] in VRS or first[:2] != _GROUP
    elements, cut = _explicit_elements(read, begin) if explicit else (_implicit_elements(read, begin), False)
    stated = _stated_end(read, elements)
    ends = [element.end for element in elements]
    if stated is not None and stated in ends:
        cut = False
        kept = elements[: ends.index(stated) + 1]
        if explicit and len(kept) < len(elements) and _is_data(read, kept):
            elements = kept
    end = elements[-1].end if elements else begin
    if cut or (size is not None and end >= size):
        raise CutOff
    values: dict[int, bytes] = {}
    for element in elements:
        if element.number not in values:
            length = 0 if element.length == UNDEFINED else min(element.length, _MAX_VALUE_BYTES)
            values[element.number] = read(element.value, length)
    return FileMeta(values, begin, end, stated, clean=explicit and stated == end and len(values) == len(elements))


def _explicit_elements(read: Reader, position: int) -> tuple[list[_Element], bool]:
    """Return the elements of group 0002 in Explicit VR from `position` on, and whether the file ends within the next one."""
    elements: list[_Element] = []
    while len(elements) < MAX_ELEMENTS:
        header = read(position, 12)
        if header[:2] != _GROUP or not is_vr(header[4:6]):
            return elements, _GROUP.startswith(header[:2]) and len(header) < 6
        number, vr, length = struct.unpack_from("<H2sH", header.ljust(8, b"\0"), 2)
        value = position + 8
        if vr in LONG_VRS:
            (length,) = struct.unpack_from("<L", header.ljust(12, b"\0"), 8)
            value = position + 12
        end = behind_undefined(read, value) if length == UNDEFINED else value + length
        if end is None or len(header) < value - position or not _is_there(read, end):
            return elements, True
        elements.append(_Element(number, value, length, end))
        position = end
    return elements, False


def _implicit_elements(read: Reader, position: int) -> list[_Element]:
    """Return the elements of group 0002 in Implicit VR from `position` on, which some writers make of the File Meta Information.

    None where they do not name a transfer syntax: then a data set begins so.
    """
    elements: list[_Element] = []
    while len(header := read(position, 8)) == 8 and header[:2] == _GROUP and len(elements) < MAX_ELEMENTS:
        number, length = struct.unpack_from("<HL", header, 2)
        end = position + 8 + length
        if length == UNDEFINED or not _is_there(read, end):
            break
        elements.append(_Element(number, position + 8, length, end))
        position = end
    syntaxes = [read(one.value, min(one.length, 64)) for one in elements if one.number == TRANSFER_SYNTAX_UID]
    named = bool(syntaxes) and is_conforming_uid(syntaxes[0].decode("latin-1").strip(" \0"))
    return elements if named else []


def _stated_end(read: Reader, elements: list[_Element]) -> int | None:
    """Return where the File Meta Information ends by its Group Length (0002,0000), None where it has none."""
    if not elements or elements[0].number != GROUP_LENGTH or elements[0].length != 4:
        return None
    return elements[0].end + int.from_bytes(read(elements[0].value, 4), "little")


def _is_data(read: Reader, kept: list[_Element]) -> bool:
    """Tell whether what looks like more elements behind the stated end is how an Implicit VR data set begins.

    In an explicit one they are read as what they look like. They belong to no data set (PS3.5 §7.1), and most readers take them for
    File Meta Information whose length is wrong, so that is what they are.
    """
    syntaxes = [one for one in kept if one.number == TRANSFER_SYNTAX_UID]
    if not syntaxes or read(syntaxes[0].value, min(syntaxes[0].length, 64)).strip(b" \0") != IMPLICIT_LITTLE.encode():
        return False
    position = kept[-1].end
    while len(header := read(position, 8)) == 8:
        group, length = int.from_bytes(header[:2], "little"), int.from_bytes(header[4:], "little")
        there = length == UNDEFINED or _is_there(read, position + 8 + length)
        if group != 2:
            return there and 4 <= group < 0xFFFE
        if length == UNDEFINED or not there:
            return False
        position += 8 + length
    return False


def _is_there(read: Reader, end: int) -> bool:
    """Tell whether the file has as many bytes as `end`."""
    return bool(read(end - 1, 1))


# Writing


def head_of(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return everything that stands before the data set of a new Part 10 file; its preamble is zeroes (PS3.10 §7.1)."""
    return PREAMBLE + meta_of(sop_class_uid, sop_instance_uid, transfer_syntax_uid)


def meta_of(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return the File Meta Information that an instance must have (PS3.10 Table 7.1-1)."""
    return encode_meta(
        (
            (VERSION, b"\x00\x01"),
            (SOP_CLASS_UID, uid_bytes(sop_class_uid)),
            (SOP_INSTANCE_UID, uid_bytes(sop_instance_uid)),
            (TRANSFER_SYNTAX_UID, uid_bytes(transfer_syntax_uid)),
            (IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode()),
        )
    )


def encode_meta(elements: Iterable[tuple[int, bytes]]) -> bytes:
    """Return File Meta Information of these element numbers and values, in the order of the numbers, its length before it."""
    body = b"".join(element(number, value) for number, value in elements)
    return group_length(len(body)) + body


def group_length(length: int) -> bytes:
    """Return the File Meta Information Group Length (0002,0000) of `length` bytes behind it."""
    return element_header(0x00020000, b"UL", 4) + struct.pack("<L", length)


def element(number: int, value: bytes) -> bytes:
    """Return one element of group 0002, its value padded to an even length (PS3.5 §7.1.2)."""
    vr = _VR_OF.get(number, b"UI")
    if len(value) % 2:
        value += b" " if vr in _SPACE_PADDED or number == PRIVATE_INFORMATION else b"\0"
    return element_header(0x00020000 | number, vr, len(value)) + value


def uid_bytes(uid: str) -> bytes:
    """Return a UID that `gateway.core.domain.is_uid` has seen as it stands in a file."""
    return uid.encode("latin-1", "replace")
