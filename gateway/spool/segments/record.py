"""A record of a segment: a Part 10 file whose preamble (PS3.10 §7.1: 128 bytes that anything may stand in) says where it belongs.

::

    magic 8 · token 14 · block 2 · length of the data set 8 · length of the head 4 · written at 8 · checksum 8 · removed 8

The checksum is over what stands before it and over the rest of the head, so that it holds for one record at one place of one
segment: what an earlier use of the same blocks left, or a head that was written in part, is no record. "Removed" is written
later and is no part of it. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import xxhash

from gateway.dicom.part10 import PREAMBLE_LENGTH
from gateway.spool.layout import BLOCK_BYTES
from gateway.spool.segments.sealing import MAX_HEAD_LENGTH

_FIELDS = struct.Struct("<8s14sHQId")
_CHECKSUM = struct.Struct("<Q")
_MAGIC = b"GWSPOOL\x01"
_REMOVED_AT = _FIELDS.size + _CHECKSUM.size
_PREAMBLE_REST = bytes(PREAMBLE_LENGTH - _REMOVED_AT)

REMOVED = b"removed\n"
"""To be written at `removed_at` of a record that nobody wants any more."""

INVALID = bytes(PREAMBLE_LENGTH)
"""To be written over the preamble of a record that failed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The contents of a record's preamble, in bytes. `written_at` is in UTC seconds since the epoch."""

    head_length: int
    length: int
    written_at: float
    removed: bool

    @property
    def size(self) -> int:
        """Head and data set together."""
        return self.head_length + self.length


def aligned(position: int) -> int:
    """Return the first place at or behind `position` at which a record may begin."""
    return -(-position // BLOCK_BYTES) * BLOCK_BYTES


def mark(token: str) -> bytes:
    """Return what every record of a segment begins with."""
    return _MAGIC + bytes.fromhex(token)


def removed_at(offset: int) -> int:
    """Return where `REMOVED` is written for the record at `offset`."""
    return offset + _REMOVED_AT


def frame(head: bytes, token: str, offset: int, length: int, written_at: float) -> bytes:
    """Return `head` with the preamble of the record at `offset`, whose data set has `length` bytes."""
    fields = _FIELDS.pack(_MAGIC, bytes.fromhex(token), offset // BLOCK_BYTES, length, len(head), written_at)
    body = head[PREAMBLE_LENGTH:]
    return b"".join((fields, _CHECKSUM.pack(_checksum(fields, body)), _PREAMBLE_REST, body))


def parse(head: bytes, token: str, offset: int) -> Frame | None:
    """Return what the record says that begins with `head` at `offset` of the segment, None where there is none."""
    if not head.startswith(mark(token)) or len(head) < PREAMBLE_LENGTH:
        return None
    _, _, block, length, head_length, written_at = _FIELDS.unpack_from(head)
    if block != offset // BLOCK_BYTES or not PREAMBLE_LENGTH < head_length <= min(len(head), MAX_HEAD_LENGTH):
        return None
    (checksum,) = _CHECKSUM.unpack_from(head, _FIELDS.size)
    if checksum != _checksum(head[: _FIELDS.size], head[PREAMBLE_LENGTH:head_length]):
        return None
    return Frame(head_length, length, written_at, head[_REMOVED_AT : _REMOVED_AT + len(REMOVED)] == REMOVED)


def plain(head: bytes) -> bytes:
    """Return the head of a record as that of a file of its own: a preamble of zeroes."""
    return bytes(PREAMBLE_LENGTH) + head[PREAMBLE_LENGTH:]


def _checksum(fields: bytes, body: bytes) -> int:
    return xxhash.xxh3_64_intdigest(fields + body)
