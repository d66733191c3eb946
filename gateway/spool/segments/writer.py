"""Writing one instance: fragments in, a durable record of a segment out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import xxhash

from gateway.core.domain import Content, InstanceIdentity, Provenance
from gateway.core.errors import SpoolError, SpoolIOError
from gateway.spool import layout
from gateway.spool.errors import storage_error
from gateway.spool.room import Room
from gateway.spool.segments import record, sealing
from gateway.spool.segments.pool import Pool, sync_data
from gateway.spool.segments.writeback import EARLY_BYTES, begin_writeback

SMALL_BYTES = 64 * 1024
"""The size up to which the beginning of an instance is kept in memory, so that a small one takes one write, head and data set."""

_MAX_VECTOR = 1024
"""Linux takes at most this many buffers in one pwritev (IOV_MAX)."""


class SpoolWriter:
    """One instance on its way to disk. One thread at a time; ends with `commit` or `discard`."""

    def __init__(
        self, pool: Pool, room: Room, identity: InstanceIdentity, provenance: Provenance, *, committed: Callable[[int], None]
    ) -> None:
        """Take a segment of `pool`; `committed` hears of the bytes of the durable record.

        Raises:
            SpoolFull: no room.
            SpoolIOError: no segment can be made.

        """
        self._pool = pool
        self._room = room
        self._committed = committed
        self._head, self._seal_at = sealing.encode(identity, provenance)
        self._digest = xxhash.xxh3_128()
        self._kept = b""
        self._whole = True
        self._open = True
        self._segment = pool.take()
        self._offset = self._segment.end
        self._begin = self._begun = self._end = self._offset + len(self._head)

    @property
    def length(self) -> int:
        """Bytes of the data set written so far."""
        return self._end - self._begin

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes, untouched. The memory is free again when this returns.

        Raises:
            SpoolFull: no room.
            SpoolIOError: the operating system refused; nothing can be committed any more.

        """
        size = 0
        for fragment in fragments:
            self._digest.update(fragment)
            size += len(fragment)
        try:
            if self._end + size > self._segment.allocated:
                self._pool.grow(self._segment, self._end + size)
            if size <= SMALL_BYTES and not self.length:
                self._kept = b"".join(fragments)
                self._end += size
            else:
                self._write_kept()
                for start in range(0, len(fragments), _MAX_VECTOR):
                    self._end = _write_all(self._segment.descriptor, fragments[start : start + _MAX_VECTOR], self._end)
            if self._end - self._begun >= EARLY_BYTES:
                begin_writeback(self._segment.descriptor, self._begun, self._end - self._begun)
                self._begun = self._end
            if self._room.written(size):
                self._pool.check_room()
        except SpoolError:
            self._whole = False
            raise
        except OSError as error:
            self._whole = False
            self._segment.failed = True
            raise storage_error("an instance cannot be written", error) from error

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` of the data set written so far.

        Raises:
            SpoolIOError: they cannot be read back.

        """
        if self._kept:
            return self._kept[offset : offset + size]
        try:
            return os.pread(self._segment.descriptor, max(0, min(size, self.length - offset)), self._begin + offset)
        except OSError as error:
            raise storage_error("an instance cannot be read back", error) from error

    def written(self) -> tuple[int, int, int]:
        """Return where the data set written so far is: descriptor, offset and length in bytes. It stays there until `commit`.

        Raises:
            SpoolIOError: it cannot be written.

        """
        try:
            self._write_kept()
        except OSError as error:
            raise storage_error("an instance cannot be written", error) from error
        return self._segment.descriptor, self._begin, self.length

    def commit(self) -> Content:
        """Make the instance durable and return where it is.

        Raises:
            SpoolFull: no room.
            SpoolIOError: a write or sync failed; the bytes were discarded.
            ValueError: nothing was written; no data set has no bytes.

        """
        if not self._whole:
            self.discard()
            raise SpoolIOError("an earlier write of this instance failed")
        if not self.length:
            self.discard()
            raise ValueError("a data set without bytes")
        segment, length, digest = self._segment, self.length, self._digest.hexdigest()
        head = sealing.sealed(self._head, self._seal_at, digest, length)
        try:
            framed = record.frame(head, segment.token, self._offset, length, time.time())
            _write_all(segment.descriptor, [memoryview(framed), memoryview(self._kept)], self._offset)
            # A failed sync is final: the kernel may have dropped the pages and report success to a second one.
            sync_data(segment.descriptor)
        except OSError as error:
            self._invalidate()
            self.discard()
            raise storage_error("an instance cannot be made durable", error) from error
        self._open = False
        size = len(head) + length
        self._pool.committed(segment, self._offset, size)
        self._pool.give(segment, size)
        self._committed(size)
        return Content(layout.record_location(segment.token, self._offset), self._begin, length, digest)

    def discard(self) -> None:
        """Drop what was written. Does nothing after `commit` or a second time."""
        if self._open:
            self._open = False
            self._pool.discarded(self._segment)

    def _write_kept(self) -> None:
        """Write what was kept, because more follows or it is to be read. Raises OSError."""
        if self._kept:
            _write_all(self._segment.descriptor, [memoryview(self._kept)], self._begin)
            self._kept = b""

    def _invalidate(self) -> None:
        """Have nobody find a record here: its sync failed, so that any part of it may or may not be on disk."""
        self._segment.failed = True
        with suppress(OSError):
            os.pwrite(self._segment.descriptor, record.INVALID, self._offset)


def _write_all(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
    """Write all of `buffers` from `offset` on and return where they end. Raises OSError."""
    written = os.pwritev(descriptor, buffers, offset)
    end = offset + sum(map(len, buffers))
    offset += written
    for buffer in buffers if offset < end else ():
        rest, written = buffer[written:], max(0, written - len(buffer))
        while rest:
            count = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[count:], offset + count
    return end
