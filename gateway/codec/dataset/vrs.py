"""The VR of an element whose VR is not written (PS3.5 §A.1, PS3.6), and how its numbers lie in the bytes. Pure."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR

from gateway.dicom.elements import LONG_VRS

MAX_SHORT_LENGTH = 0xFFFE

PIXEL_REPRESENTATION, WAVEFORM_BITS_ALLOCATED = 0x00280103, 0x54001004
DECIDERS = frozenset({PIXEL_REPRESENTATION, WAVEFORM_BITS_ALLOCATED})
"""Elements that decide which VR others have."""

_BY_WAVEFORM_BITS = frozenset({0x54000110, 0x54000112, 0x5400100A, 0x54001010})

WORD_BYTES = {
    b"US": 2, b"SS": 2, b"OW": 2, b"AT": 2,
    b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"OV": 8, b"SV": 8, b"UV": 8,
}  # fmt: skip
"""VRs whose values are swapped where the byte order changes (PS3.5 §7.3), with the size of what is swapped; AT is two numbers."""


@lru_cache(maxsize=8192)
def listed(tag: int) -> str:
    """Return what the data dictionary says, empty where it does not list `tag`."""
    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return "UL"
    if group % 2:
        return "LO" if 0x10 <= number <= 0xFF else ""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def implicit_vr(tag: int, length: int) -> bytes:
    """Return the VR of an element without one, UN where it is not known or cannot hold `length` bytes.

    Of two or more that may be meant, it is the one that holds where no other element decides otherwise (`decider`).
    """
    vr = _usual(listed(tag))
    if vr not in LONG_VRS and length > MAX_SHORT_LENGTH:
        return b"UN"  # PS3.5 §6.2.2: where the length does not fit into 16 bits
    return vr


def _usual(listed: str) -> bytes:
    choices = listed.split(" or ")
    if "OW" in choices:
        return b"OW"  # PS3.5 §A.1: implicit VR encodings use OW wherever there is a choice
    return choices[0].encode() if len(choices[0]) == 2 else b"UN"


@lru_cache(maxsize=8192)
def decider(tag: int) -> int | None:
    """Return the tag of the element that decides which VR the element `tag` has, None where nothing does.

    It stands at the same level or at one around it, before or behind: Pixel Representation tells US from SS (PS3.3 §C.7.6.3),
    Waveform Bits Allocated OB from OW (PS3.3 §C.10.9). Where OW holds whatever other elements say, as for LUT Data (PS3.5 §A.1,
    §A.2), nothing decides.
    """
    if tag in _BY_WAVEFORM_BITS:
        return WAVEFORM_BITS_ALLOCATED
    return PIXEL_REPRESENTATION if listed(tag) == "US or SS" else None


def decided_vr(decider: int, value: bytes) -> bytes | None:
    """Return the VR that `value` (a number in Little Endian) of the element `decider` decides on, None where it is no number."""
    if len(value) != 2:
        return None
    number = int.from_bytes(value, "little")
    if decider == PIXEL_REPRESENTATION:
        return b"SS" if number else b"US"
    return b"OB" if number <= 8 else b"OW"


def swapped(value: bytes, word: int) -> bytes:
    """Return `value` with the bytes of each word of `word` bytes reversed; what is left over at its end stays."""
    whole = len(value) // word * word
    result = bytearray(value)
    for byte in range(word):
        result[byte:whole:word] = value[word - 1 - byte : whole : word]
    return bytes(result)
