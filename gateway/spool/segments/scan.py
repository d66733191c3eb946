"""Finding the records of a segment by reading it: at start, and where no table of it is at hand. Reads only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from gateway.spool.layout import BLOCK_BYTES
from gateway.spool.segments import record
from gateway.spool.segments.record import Frame
from gateway.spool.segments.sealing import MAX_HEAD_LENGTH

_NEAR_BYTES = 64 * 1024
_AHEAD_BYTES = 512 * 1024
_SEARCH_BYTES = 1024 * 1024


@dataclass(slots=True)
class Scanned:
    """The contents of a segment: records as (offset, bytes, removed) in order, and damaged `gaps` between, from offset to offset.

    `end` is where the next record would begin.
    """

    records: list[tuple[int, int, bool]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0


def read_frame(descriptor: int, token: str, offset: int) -> Frame | None:
    """Return what the record at `offset` says, None where there is none. Raises OSError."""
    return record.parse(os.pread(descriptor, MAX_HEAD_LENGTH, offset), token, offset)


def scan(descriptor: int, token: str, size: int) -> Scanned:
    """Walk from record to record through the segment of `size` bytes.

    Where no record is, the next one is searched for: what lies between was damaged, for records follow each other without gaps.
    Nothing is found behind the last one, because nothing but a record of this segment begins with its unguessable token. The
    statements of a record about its data set are not checked here.

    Raises:
        OSError: the segment cannot be read.

    """
    found = Scanned()
    heads = _Heads(descriptor)
    while found.end < size:
        frame = record.parse(heads.at(found.end), token, found.end)
        if frame is None:
            following = _search(descriptor, token, found.end + BLOCK_BYTES, size)
            if following is None:
                break
            found.gaps.append((found.end, following))
            found.end = following
        else:
            found.records.append((found.end, frame.size, frame.removed))
            found.end = record.aligned(found.end + frame.size)
    return found


class _Heads:
    """Heads of records, read one at a time where they are far apart and many at a time where they are near."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last = -_NEAR_BYTES
        self._start = 0
        self._block = b""

    def at(self, offset: int) -> bytes:
        near, self._last = offset - self._last < _NEAR_BYTES, offset
        within = offset - self._start
        if within > len(self._block) - MAX_HEAD_LENGTH:
            self._block = os.pread(self._descriptor, _AHEAD_BYTES if near else MAX_HEAD_LENGTH, offset)
            self._start, within = offset, 0
        return self._block[within : within + MAX_HEAD_LENGTH]


def _search(descriptor: int, token: str, offset: int, size: int) -> int | None:
    """Return where the next record at or behind `offset` begins, None where there is none."""
    begin = record.mark(token)
    for start in range(offset, size, _SEARCH_BYTES):
        block = os.pread(descriptor, _SEARCH_BYTES + len(begin), start)
        position = block.find(begin)
        while position >= 0:
            place = start + position
            if position < _SEARCH_BYTES and place % BLOCK_BYTES == 0 and read_frame(descriptor, token, place) is not None:
                return place
            position = block.find(begin, position + 1)
    return None
