"""Throttles that say how much was taken from them, so that tests count bytes and waits instead of measuring time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.core.throttle import Throttle


class Counting(Throttle):
    """A throttle of `bytes_per_s` on a clock that stands still but for the waits it asked for: each caller waits `real_s` instead.

    `taken` are the bytes taken, `asked_s` the seconds that it would have had its callers wait; `real_s` is given the latter.
    """

    def __init__(self, bytes_per_s: float, real_s: Callable[[float], float] = lambda _asked_s: 0.0) -> None:
        self.taken: list[int] = []
        self.asked_s = 0.0
        self.used = threading.Event()
        self._real_s = real_s
        super().__init__(bytes_per_s, clock=lambda: 1000.0 + self.asked_s)

    def take(self, count: int) -> float:
        wait_s = super().take(count)
        self.taken.append(count)
        self.asked_s += wait_s
        self.used.set()
        return self._real_s(wait_s)
