"""Telling DICOM files from others by their first bytes (PS3.10 §7.1). Pure but for the reader it is given.

Recognised are Part 10 files, Part 10 files whose preamble (and prefix) got lost, and bare data sets. A bare data set has no mark
of its own, so it must begin with group 0008 and name a SOP Class UID and a SOP Instance UID: no other file does by chance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.core.domain import InstanceIdentity, is_conforming_uid, is_sop_class, is_uid
from gateway.dicom.elements import CUT, VRS, Reader
from gateway.dicom.head import DataSetHead, read_head
from gateway.dicom.inflating import ENDLESS
from gateway.dicom.part10 import (
    ENDS_WITHIN_HEADER,
    PREAMBLE_LENGTH,
    PREFIX,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    TRANSFER_SYNTAX_UID,
    CutOff,
    read_meta,
)
from gateway.dicom.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

HEAD_BYTES = 64 * 1024
"""The number of bytes of a file that are read at once to find where its data set begins."""

_META_STARTS = tuple(struct.pack("<HH", 0x0002, element) for element in (0x0000, 0x0001, 0x0002, 0x0003, 0x0010))
_DATA_SET_GROUPS = {b"\x08\x00": False, b"\x00\x08": True}


@dataclass(frozen=True, slots=True)
class DicomFile:
    """The place of the data set in a file, and its instance; `unread` says why something may be there that was not found."""

    offset: int
    identity: InstanceIdentity
    unread: str = ""


@dataclass(frozen=True, slots=True)
class NoInstance:
    """The reason why a file is no instance; `dicom` tells that it is a DICOM file all the same, so that somebody may miss it."""

    reason: str
    dicom: bool = False


def sniff(read: Reader, size: int) -> DicomFile | NoInstance:
    """Recognise the file of `size` bytes that `read` gives from its first byte."""
    start = read(0, HEAD_BYTES)
    if start[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == PREFIX:
        return _with_meta(_starting(read, start), PREAMBLE_LENGTH + 4, size)
    if start[:4] == PREFIX:
        return _with_meta(_starting(read, start), 4, size)
    if start[:4] in _META_STARTS and start[4:6] in VRS:
        return _with_meta(_starting(read, start), 0, size)
    if start[:2] in _DATA_SET_GROUPS:
        return _bare(_starting(read, start))
    return NoInstance("not DICOM" if start else "empty")


def _with_meta(read: Reader, begin: int, size: int) -> DicomFile | NoInstance:
    try:
        meta = read_meta(read, begin, size)
    except CutOff:
        return NoInstance(ENDS_WITHIN_HEADER, dicom=True)
    if meta.text(SOP_CLASS_UID) == MEDIA_STORAGE_DIRECTORY:
        return NoInstance("a DICOMDIR")
    data_set = _from(read, meta.end)
    syntax = meta.text(TRANSFER_SYNTAX_UID)
    if not is_conforming_uid(syntax):
        syntax = _guessed(data_set(0, 8))
    head = read_head(data_set, syntax, ())
    if head.unread in (CUT, ENDLESS):
        return NoInstance(ENDS_WITHIN_HEADER, dicom=True)
    sop_class = head.sop_class_uid or meta.text(SOP_CLASS_UID)
    sop_instance = head.sop_instance_uid or meta.text(SOP_INSTANCE_UID)
    if not (is_sop_class(sop_class) and is_uid(sop_instance)):
        return NoInstance("DICOM, but without a valid SOP Class UID and SOP Instance UID", dicom=True)
    return DicomFile(meta.end, _identity(sop_class, sop_instance, syntax, head), head.unread)


def _bare(read: Reader) -> DicomFile | NoInstance:
    syntax = _guessed(read(0, 8))
    head = read_head(read, syntax, ())
    if not (is_conforming_uid(head.sop_class_uid) and head.sop_instance_uid):
        return NoInstance("not DICOM")
    if head.unread in (CUT, ENDLESS):
        return NoInstance(ENDS_WITHIN_HEADER, dicom=True)
    return DicomFile(0, _identity(head.sop_class_uid, head.sop_instance_uid, syntax, head), head.unread)


def _identity(sop_class: str, sop_instance: str, syntax: str, head: DataSetHead) -> InstanceIdentity:
    return InstanceIdentity(sop_class, sop_instance, syntax, head.study_instance_uid, head.series_instance_uid)


def _guessed(data_set: bytes) -> str:
    """Return the transfer syntax that an uncompressed data set's first element shows."""
    if _DATA_SET_GROUPS.get(data_set[:2], False):
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if data_set[4:6] in VRS else IMPLICIT_LITTLE


def _starting(read: Reader, start: bytes) -> Reader:
    """Return `read` with what was read of the file's start already."""
    return lambda offset, size: start[offset : offset + size] if offset + size <= len(start) else read(offset, size)


def _from(read: Reader, begin: int) -> Reader:
    return lambda offset, size: read(begin + offset, size)
