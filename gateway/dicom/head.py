"""The head of a data set for routing and the ledger: its UIDs and the attributes that the rules name.

Values stay in memory: patient data is never recorded. Reading any bytes raises nothing but what the reader
raises; attributes that cannot be read are absent, and `DataSetHead.unread` says so.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword

from gateway.core.domain import UID_RULE, Attributes, Provenance, is_uid
from gateway.dicom.elements import CHARACTER_SET, Element, Reader, Unread, scan, unread
from gateway.dicom.inflating import Inflating
from gateway.dicom.syntaxes import EXPLICIT_BIG, syntax

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_UIDS = {
    _SOP_CLASS_UID: "SOP Class UID",
    _SOP_INSTANCE_UID: "SOP Instance UID",
    _STUDY_INSTANCE_UID: "Study Instance UID",
    _SERIES_INSTANCE_UID: "Series Instance UID",
}
_ALWAYS = frozenset({CHARACTER_SET, *_UIDS})

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
"""A backslash in them is one (PS3.5 §6.2)."""

_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_PADDING = " \0"
_DELIMITERS = {0x5C, 0x5E, 0x3D}
_ESCAPE = b"\x1b"
"""Begins a code extension, which some writers use without having declared it."""


@dataclass(frozen=True, slots=True)
class DataSetHead:
    """The UIDs at a data set's head, each empty where it is absent or no UID, and the values of the asked keywords.

    `unread` says in words why something may be there that was not found, and is empty where nothing may. `behind` is how many bytes
    of the data set were at hand, where more could tell more.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    values: Mapping[str, str]
    unread: str = field(default="", compare=False)
    behind: int | None = field(default=None, compare=False)

    def attributes(self, provenance: Provenance) -> Attributes:
        """Return what routing may ask: the values, and who sent the instance."""
        operation = {"calling_ae": provenance.calling_ae, "called_ae": provenance.called_ae, "source": provenance.source or ""}
        return Attributes({**self.values, **operation})


def read_head(read: Reader, transfer_syntax_uid: str, keywords: Collection[str]) -> DataSetHead:
    """Return what stands at the head of the data set that `read` gives in `transfer_syntax_uid`.

    `keywords` are DICOM keywords; unknown ones have no value. Values are text: several joined by a backslash, numbers in
    decimal, padding removed.
    """
    if not syntax(transfer_syntax_uid).deflated:
        return _head(read, transfer_syntax_uid, frozenset(keywords))
    inflating = Inflating(read)
    head = _head(inflating, transfer_syntax_uid, frozenset(keywords))
    lacking = not all((head.sop_class_uid, head.sop_instance_uid, head.study_instance_uid, head.series_instance_uid))
    # It may have been met in what was read ahead, behind all that is wanted.
    return replace(head, unread=inflating.problem) if inflating.problem and (lacking or head.unread) else head


def peek_head(beginning: memoryview, transfer_syntax_uid: str, keywords: frozenset[str]) -> DataSetHead | None:
    """Return what `read_head` does where the first bytes of the data set are enough for it; None where they are not.

    Where the head's `behind` is set, they are enough only for a data set of no more bytes than that.
    """
    if syntax(transfer_syntax_uid).deflated:
        return None
    try:
        return _head(unread, transfer_syntax_uid, keywords, beginning)
    except Unread:
        return None


@lru_cache(maxsize=64)
def _asked(keywords: frozenset[str]) -> tuple[Mapping[str, int], frozenset[int], tuple[int, ...]]:
    """Return the tags of `keywords`, all tags to look for, and those without which it is worth to look further."""
    asked = {keyword: tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    return asked, _ALWAYS.union(asked.values()), tuple({*_UIDS, *asked.values()})


def _head(read: Reader, transfer_syntax_uid: str, keywords: frozenset[str], beginning: bytes | memoryview = b"") -> DataSetHead:
    asked, tags, needed = _asked(keywords)
    seen = scan(read, tags, needed=needed, big_endian=transfer_syntax_uid == EXPLICIT_BIG, beginning=beginning)
    found = seen.found
    character_sets = _plain(found.get(CHARACTER_SET)).split("\\")
    values = {keyword: _value(tag, found[tag], character_sets) for keyword, tag in asked.items() if tag in found}
    sop_class, instance, study, series = uids = [_uid(found.get(tag)) for tag in _UIDS]
    return DataSetHead(
        sop_class,
        instance,
        study,
        series,
        values,
        seen.ended or ("" if all(uids) else _left_out(found)),
        seen.behind,
    )


def _left_out(found: Mapping[int, Element]) -> str:
    """Return in words which UID cannot be carried, empty where there is none."""
    names = [name for tag, name in _UIDS.items() if (value := _plain(found.get(tag))) and not is_uid(value)]
    return f"{', '.join(names)} with {UID_RULE}" if names else ""


def _uid(element: Element | None) -> str:
    value = _plain(element)
    return value if is_uid(value) else ""


def _plain(element: Element | None) -> str:
    return "" if element is None else element.value.decode("latin-1").strip(_PADDING)


def _value(tag: int, element: Element, character_sets: list[str]) -> str:
    vr = element.vr if element.vr not in ("", "UN") else dictionary_VR(tag).split(" or ")[0]
    if vr in _NUMBERS:
        return _numbers(element, _NUMBERS[vr])
    text = _decoded(element.value, character_sets) if vr in _TEXT_VRS else element.value.decode("latin-1")
    return text.strip(_PADDING) if vr in _SINGLE_VRS else "\\".join(part.strip(_PADDING) for part in text.split("\\"))


def _numbers(element: Element, code: str) -> str:
    order = ">" if element.big_endian else "<"
    size = struct.calcsize(order + code)
    whole = element.value[: len(element.value) // size * size]
    return "\\".join(f"{number:g}" if code in "fd" else str(number) for (number,) in struct.iter_unpack(order + code, whole))


def _decoded(value: bytes, character_sets: list[str]) -> str:
    """Decode text by Specific Character Set (0008,0005) (PS3.3 §C.12.1.1.2), with replacement characters where it is wrong."""
    if len(character_sets) > 1 or _ESCAPE in value:
        try:
            return decode_bytes(value, convert_encodings(character_sets), _DELIMITERS)
        except (LookupError, ValueError, Warning):
            return value.decode("latin-1")
    encoding = python_encoding.get(character_sets[0], "latin-1")
    return value.decode(encoding if isinstance(encoding, str) else "latin-1", "replace")
