"""One segment of the log: a file that grows by records, and the table of those that are still wanted.

A segment is written by one writer at a time, which has it for the length of one instance; it is read by any number. The table is
guarded by the lock of the `Pool` that the segment belongs to; whoever calls a method here that reads or changes it holds that lock.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field

from gateway.spool import layout
from gateway.spool.segments.record import aligned


@dataclass(eq=False, slots=True)
class Segment:
    """A file of records. `end` is where the next one begins, `allocated` how far the file has its room, in bytes.

    `retired`: nothing is appended any more. `failed`: a write or sync of it failed, so that it is retired once its writer gives it
    back. `scanned`: the table knows all records; else the file was met by its name only.
    """

    token: str
    root: int
    descriptor: int = -1
    end: int = 0
    allocated: int = 0
    retired: bool = False
    failed: bool = False
    scanned: bool = True
    readers: int = 0
    live: int = 0
    live_bytes: int = 0
    idle_since: float = 0.0
    unsynced: bool = False
    starts: array[int] = field(default_factory=lambda: array("I"))
    sizes: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def dead(self) -> bool:
        """True when nobody wants, writes or reads any of it."""
        return self.retired and self.scanned and self.live == 0 and self.readers == 0

    def append(self, offset: int, size: int) -> None:
        """Note the record of `size` bytes at `offset`, behind all others."""
        self.starts.append(offset // layout.BLOCK_BYTES)
        self.sizes.append(size)
        self.live += 1
        self.live_bytes += size
        self.end = aligned(offset + size)

    def size_at(self, offset: int) -> int | None:
        """Return the bytes of the record at `offset`, 0 where it was released, None where there is none."""
        number = self._number(offset)
        return None if number is None else self.sizes[number]

    def release(self, offset: int) -> int:
        """Strike the record at `offset` off the table and return its bytes, 0 where it is not there (any more)."""
        number = self._number(offset)
        if number is None:
            return 0
        size, self.sizes[number] = self.sizes[number], 0
        if size:
            self.live -= 1
            self.live_bytes -= size
        return size

    def is_last(self, offset: int) -> bool:
        """Tell whether no record follows the one at `offset`."""
        return bool(self.starts) and self.starts[-1] == offset // layout.BLOCK_BYTES

    def offsets(self) -> list[int]:
        """Return where the records begin that are still wanted."""
        return [start * layout.BLOCK_BYTES for start, size in zip(self.starts, self.sizes, strict=True) if size]

    def open(self) -> int:
        """Return the file's descriptor, opened where it is not yet. Raises OSError."""
        if self.descriptor < 0:
            self.descriptor = os.open(layout.segment_path(self.token), os.O_RDWR | os.O_CLOEXEC, dir_fd=self.root)
        return self.descriptor

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _number(self, offset: int) -> int | None:
        start = offset // layout.BLOCK_BYTES
        number = bisect_left(self.starts, start)
        return number if number < len(self.starts) and self.starts[number] == start else None
