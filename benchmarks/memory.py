"""Memory that the machine really has: a virtual one may have to ask its host for each page that it uses for the first time.

Many hosts take memory that is free back and give it again page by page, which costs tens of times what writing to the page does.
A party that uses memory which others have just let go of is then fast, and one that needs new memory (a receiver that writes
files, for one) is slow: which of the two it is depends on the party that ran before. So all memory is used once, and of each MiB
one page is kept, so that no stretch of free memory is long enough to be taken back.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_BYTES = 1024 * 1024
"""One page of so many bytes stays in use; hosts take back stretches of 2 MiB and more."""

LEFT_BYTES = 2 * 1024**3
"""Not touched, so that nothing is driven out of memory for this."""


@contextmanager
def present(most_bytes: int | None = None) -> Iterator[int]:
    """Have the memory that is free now (or `most_bytes` of it) really there inside the ``with``; gives how many bytes that is.

    Takes about a second a GiB on a machine whose memory is there anyway, and several where it is not.
    """
    size = max(0, min(_free() - LEFT_BYTES, most_bytes or _free())) // KEPT_BYTES * KEPT_BYTES
    if not size:
        yield 0
        return
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1
        for at in range(0, size, KEPT_BYTES):
            memory.madvise(mmap.MADV_DONTNEED, at + mmap.PAGESIZE, KEPT_BYTES - mmap.PAGESIZE)
        yield size


def _free() -> int:
    """Return how many bytes may be used without driving anything out: those of the machine, or of this process's group if fewer."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        # No group of its own, or one without a bound.
        return machine
    return min(machine, most - used)
