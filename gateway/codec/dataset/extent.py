"""A stretch of a file, read by position: the bytes of a data set, wherever they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024
COPY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes from `offset` of the file that `fd` is open for."""

    fd: int
    offset: int
    length: int

    def read(self, position: int, size: int) -> bytes:
        """Return the bytes from `position`; fewer than `size` only at the end. Raises OSError."""
        size = max(0, min(size, self.length - position))
        data = os.pread(self.fd, size, self.offset + position) if size else b""
        while len(data) < size:
            more = os.pread(self.fd, size - len(data), self.offset + position + len(data))
            if not more:
                break
            data += more
        return data


class Window:
    """An extent read in chunks: many small reads that go forwards cost few system calls."""

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self._start = 0
        self._chunk = b""

    def at(self, position: int, size: int) -> bytes:
        """Return `size` bytes from `position`, fewer only at the end. Raises OSError."""
        begin = position - self._start
        if begin < 0 or begin + size > len(self._chunk):
            self._start, self._chunk = position, self.extent.read(position, max(size, _CHUNK_BYTES))
            begin = 0
        return self._chunk[begin : begin + size]


class Output:
    """Writes a file from its beginning, through a buffer, and corrects what it wrote.

    The file at `fd` is written by position and nothing else is done to it. Raises OSError.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._flushed = 0
        self._buffer = bytearray()

    @property
    def position(self) -> int:
        """The number of bytes that were written."""
        return self._flushed + len(self._buffer)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self._buffer += data
        if len(self._buffer) >= COPY_BYTES:
            self.flush()

    def copy(self, source: Extent, begin: int, end: int) -> None:
        """Append the bytes of `source` from `begin` to `end`. Raises EOFError where they are not there."""
        while begin < end:
            data = source.read(begin, min(COPY_BYTES, end - begin))
            if not data:
                raise EOFError
            self.write(data)
            begin += len(data)

    def patch(self, position: int, data: bytes) -> None:
        """Replace what was written at `position`."""
        if position >= self._flushed:
            begin = position - self._flushed
            self._buffer[begin : begin + len(data)] = data
        else:
            self.flush()
            write_at(self.fd, position, data)

    def skip(self, size: int) -> int:
        """Leave room for `size` bytes that somebody else writes; returns where they begin."""
        self.flush()
        begin = self._flushed
        self._flushed += size
        return begin

    def flush(self) -> None:
        """Write what is in the buffer."""
        write_at(self.fd, self._flushed, self._buffer)
        self._flushed += len(self._buffer)
        self._buffer.clear()

    def finish(self) -> int:
        """Write everything and cut the file behind it; returns its length."""
        self.flush()
        os.ftruncate(self.fd, self._flushed)
        return self._flushed


def write_at(fd: int, position: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` at `position`. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written
