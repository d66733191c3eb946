"""Telling DICOM files from others by their first bytes (PS3.10 §7.1). Pure but for the reader it is given.

Recognised are Part 10 files, Part 10 files whose preamble (and prefix) got lost, and bare data sets. A bare data set has no mark
of its own, so it must begin with group 0008 and name a SOP Class UID and a SOP Instance UID: no other file does by chance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.domain import InstanceIdentity, is_uid
from gateway.intake.attributes import DataSetHead, read_head
from gateway.intake.elements import EXPLICIT_BIG, VRS, Reader, scan

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

HEAD_BYTES = 64 * 1024
"""How much of a file is looked at to find where its data set begins."""

_PREAMBLE_LENGTH = 128
_PREFIX = b"DICM"
_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID = 0x00020002, 0x00020003, 0x00020010
_META_STARTS = tuple(struct.pack("<HH", 0x0002, element) for element in (0x0000, 0x0001, 0x0002, 0x0003, 0x0010))
_DATA_SET_GROUPS = {b"\x08\x00": False, b"\x00\x08": True}


@dataclass(frozen=True, slots=True)
class DicomFile:
    """Where a file's data set begins, and what instance it is."""

    offset: int
    identity: InstanceIdentity


@dataclass(frozen=True, slots=True)
class NoInstance:
    """Why a file is no instance; `dicom` tells that it is a DICOM file all the same, so that somebody may miss it."""

    reason: str
    dicom: bool = False


def sniff(read: Reader) -> DicomFile | NoInstance:
    """Recognise the file that `read` gives from its first byte."""
    start = read(0, HEAD_BYTES)
    if start[_PREAMBLE_LENGTH : _PREAMBLE_LENGTH + 4] == _PREFIX:
        return _with_meta(read, start, _PREAMBLE_LENGTH + 4)
    if start[:4] == _PREFIX:
        return _with_meta(read, start, 4)
    if start[:4] in _META_STARTS and start[4:6] in VRS:
        return _with_meta(read, start, 0)
    if start[:2] in _DATA_SET_GROUPS:
        return _bare(read, start)
    return NoInstance("not DICOM" if start else "empty")


def _with_meta(read: Reader, start: bytes, offset: int) -> DicomFile | NoInstance:
    meta, begin = _file_meta(start, offset)
    if meta.get(_SOP_CLASS_UID) == MEDIA_STORAGE_DIRECTORY:
        return NoInstance("a DICOMDIR")
    syntax = meta.get(_TRANSFER_SYNTAX_UID, "")
    if not is_uid(syntax):
        syntax = _guessed(start[begin:])
    head = read_head(_from(read, begin), syntax, ())
    sop_class = head.sop_class_uid or meta.get(_SOP_CLASS_UID, "")
    sop_instance = head.sop_instance_uid or meta.get(_SOP_INSTANCE_UID, "")
    if not (is_uid(sop_class) and is_uid(sop_instance)):
        return NoInstance("DICOM, but without a valid SOP Class UID and SOP Instance UID", dicom=True)
    return DicomFile(begin, _identity(sop_class, sop_instance, syntax, head))


def _bare(read: Reader, start: bytes) -> DicomFile | NoInstance:
    syntax = _guessed(start)
    head = read_head(read, syntax, ())
    if not (head.sop_class_uid and head.sop_instance_uid):
        return NoInstance("not DICOM")
    return DicomFile(0, _identity(head.sop_class_uid, head.sop_instance_uid, syntax, head))


def _identity(sop_class: str, sop_instance: str, syntax: str, head: DataSetHead) -> InstanceIdentity:
    return InstanceIdentity(sop_class, sop_instance, syntax, head.study_instance_uid, head.series_instance_uid)


def _guessed(data_set: bytes) -> str:
    """Return the transfer syntax that an uncompressed data set's first element shows."""
    if _DATA_SET_GROUPS.get(data_set[:2], False):
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if data_set[4:6] in VRS else IMPLICIT_LITTLE


def _file_meta(start: bytes, offset: int) -> tuple[dict[int, str], int]:
    """Return the UIDs of the File Meta Information and where it ends; its group length is not trusted."""
    wanted = {_SOP_CLASS_UID, _SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID}
    found = scan(_from(lambda position, size: start[position : position + size], offset), wanted)
    meta = {tag: element.value.decode("latin-1").strip(" \x00") for tag, element in found.items()}
    return meta, _end_of_meta(start, offset)


def _end_of_meta(start: bytes, position: int) -> int:
    explicit = start[position + 4 : position + 6] in VRS
    while start[position : position + 2] == b"\x02\x00" and position + 12 <= len(start):
        if not explicit:
            position += 8 + int(struct.unpack_from("<L", start, position + 4)[0])
        elif start[position + 4 : position + 6] in (b"OB", b"OW", b"UN", b"UT", b"UR", b"UC", b"SQ"):
            position += 12 + int(struct.unpack_from("<L", start, position + 8)[0])
        else:
            position += 8 + int(struct.unpack_from("<H", start, position + 6)[0])
    return position


def _from(read: Reader, begin: int) -> Reader:
    return lambda offset, size: read(begin + offset, size)
