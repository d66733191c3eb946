"""Part 10 files made by hand, byte by byte: File Meta Information of every shape before a small data set."""

from __future__ import annotations

import struct
from collections.abc import Iterable

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
PREAMBLE = bytes(128) + b"DICM"
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHL", 0xFFFE, *rest) for rest in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0)))

_LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def explicit(tag: int, vr: bytes, value: bytes, *, undefined: bool = False) -> bytes:
    """Return one element in Explicit VR Little Endian."""
    value += bytes(len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in _LONG:
        return head + struct.pack("<HL", 0, 0xFFFFFFFF if undefined else len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def implicit(tag: int, value: bytes) -> bytes:
    """Return one element in Implicit VR Little Endian."""
    value += bytes(len(value) % 2)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def uid(tag: int, value: str, vr: bytes = b"UI") -> bytes:
    """Return an element with a UID in Explicit VR."""
    return explicit(tag, vr, value.encode("latin-1"))


def meta(
    syntax: str = EXPLICIT, instance: str = "1.2.3", *, extra: bytes = b"", length: int | None = 0, sop_class: str = CT
) -> bytes:
    """Return preamble and File Meta Information; `length` is added to its group length, None leaves that out."""
    body = explicit(0x00020001, b"OB", b"\0\1") + uid(0x00020002, sop_class) + uid(0x00020003, instance)
    body += uid(0x00020010, syntax) + uid(0x00020012, "1.2.9") + extra
    stated = b"" if length is None else explicit(0x00020000, b"UL", struct.pack("<L", (len(body) + length) & 0xFFFFFFFF))
    return PREAMBLE + stated + body


def values(instance: str = "1.2.3", *, study: str = "1.2", series: str = "1.2.1") -> list[tuple[int, bytes, bytes]]:
    """Return tag, VR and value of the elements of a small image."""
    return [
        (0x00080016, b"UI", CT.encode()),
        (0x00080018, b"UI", instance.encode("latin-1")),
        (0x00080060, b"CS", b"CT"),
        (0x00100020, b"LO", b"PID1"),
        (0x0020000D, b"UI", study.encode("latin-1")),
        (0x0020000E, b"UI", series.encode("latin-1")),
        (0x00280010, b"US", struct.pack("<H", 4)),
        (0x7FE00010, b"OW", bytes(range(32))),
    ]


def data_set(syntax: str = EXPLICIT, elements: Iterable[tuple[int, bytes, bytes]] | None = None) -> bytes:
    """Return `elements` in `syntax`, those of `values` by default."""
    made = values() if elements is None else elements
    return b"".join(implicit(tag, value) if syntax == IMPLICIT else explicit(tag, vr, value) for tag, vr, value in made)
