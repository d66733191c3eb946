"""Data sets written byte by byte, as odd as they come, in any encoding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV", "ZZ"}
WORDS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "AT": "H", "OW": "H", "OF": "f", "OD": "d", "OL": "L"}


@dataclass(frozen=True)
class Made:
    """One element: its value is bytes, numbers (of a VR in `WORDS`), or items, each a list of elements.

    `defined` tells whether a sequence and its items have lengths.
    """

    tag: int
    vr: str
    value: bytes | tuple[float, ...] = b""
    items: Sequence[Sequence[Made]] | None = None
    defined: bool = True
    raw: bytes = field(default=b"")
    """Items as they are, for a sequence of undefined length in VR UN."""


def encode(elements: Sequence[Made], *, explicit: bool = True, big: bool = False) -> bytes:
    """Return the bytes of a data set."""
    return b"".join(_element(each, explicit, ">" if big else "<") for each in elements)


def _element(made: Made, explicit: bool, order: str) -> bytes:
    value, length = _value(made, explicit, order)
    tag = struct.pack(order + "HH", made.tag >> 16, made.tag & 0xFFFF)
    if not explicit:
        return tag + struct.pack(order + "L", length) + value
    if made.vr in LONG:
        return tag + made.vr.encode() + b"\0\0" + struct.pack(order + "L", length) + value
    return tag + made.vr.encode() + struct.pack(order + "H", length) + value


def _value(made: Made, explicit: bool, order: str) -> tuple[bytes, int]:
    if made.raw:
        return made.raw + _item(0xE0DD, 0, order), 0xFFFFFFFF
    if made.items is not None:
        value = b"".join(_items(made, explicit, order))
        return (value, len(value)) if made.defined else (value + _item(0xE0DD, 0, order), 0xFFFFFFFF)
    if isinstance(made.value, tuple):
        packed = struct.pack(f"{order}{len(made.value)}{WORDS[made.vr]}", *made.value)
        return packed, len(packed)
    return made.value, len(made.value)


def _items(made: Made, explicit: bool, order: str) -> list[bytes]:
    parts = []
    for item in made.items or ():
        content = encode(item, explicit=explicit, big=order == ">")
        if made.defined:
            parts.append(_item(0xE000, len(content), order) + content)
        else:
            parts.append(_item(0xE000, 0xFFFFFFFF, order) + content + _item(0xE00D, 0, order))
    return parts


def _item(number: int, length: int, order: str) -> bytes:
    return struct.pack(order + "HHL", 0xFFFE, number, length)
