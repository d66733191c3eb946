"""Which VR an element has whose VR is not written (PS3.5 §A.1, PS3.6), and how its numbers lie in the bytes. Pure."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import dictionary_VR

from gateway.dicom.elements import LONG_VRS

MAX_SHORT_LENGTH = 0xFFFE

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


def implicit_vr(tag: int, length: int, *, signed: bool) -> bytes:
    """Return the VR of an element without one, UN where it is not known or cannot hold `length` bytes.

    Args:
        tag: the element's tag.
        length: its length in bytes as it stands there.
        signed: Pixel Representation (0028,0103) is 1: then what is US or SS is SS.
    """
    vr = _chosen(listed(tag), signed=signed)
    if vr not in LONG_VRS and length > MAX_SHORT_LENGTH:
        return b"UN"  # PS3.5 §6.2.2: where the length does not fit into 16 bits
    return vr


def _chosen(listed: str, *, signed: bool) -> bytes:
    choices = listed.split(" or ")
    if "OW" in choices:
        return b"OW"  # PS3.5 §A.1: implicit VR encodings use OW wherever there is a choice
    if choices == ["US", "SS"]:
        return b"SS" if signed else b"US"
    return choices[0].encode() if len(choices[0]) == 2 else b"UN"


def swapped(value: bytes, word: int) -> bytes:
    """Return `value` with the bytes of each word of `word` bytes reversed; what is left over at its end stays."""
    whole = len(value) // word * word
    result = bytearray(value)
    for byte in range(word):
        result[byte:whole:word] = value[word - 1 - byte : whole : word]
    return bytes(result)
