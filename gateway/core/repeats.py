"""Events that may come by the thousand: one line of the log a minute, with how many there were. Pure but for the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LINE_EVERY_S = 60.0


class Repeats:
    """Counts events of a kind and tells when a line is due: at the first, then a minute after the last line. Thread-safe."""

    def __init__(self, *, every_s: float = LINE_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Let one line through in `every_s` seconds of `clock`."""
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._count: dict[str, int] = {}
        self._next: dict[str, float] = {}

    def due(self, kind: str) -> int:
        """Count an event of `kind`, one of a few; return how many there were since the last line where one is due, else 0."""
        with self._lock:
            count = self._count[kind] = self._count.get(kind, 0) + 1
            now = self._clock()
            if now < self._next.get(kind, now):
                return 0
            self._next[kind] = now + self._every_s
            self._count[kind] = 0
            return count

    def rest(self) -> int:
        """Return how many events no line has told of yet, and begin anew: it is over, and the next one is told at once."""
        with self._lock:
            rest = sum(self._count.values())
            self._count.clear()
            self._next.clear()
            return rest
