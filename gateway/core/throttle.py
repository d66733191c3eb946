"""So many bytes a second, and no more, shared by all who move them: a token bucket.

A thread about to move bytes takes them from the bucket and is told how long to wait before. Waiting is left to the caller, who
knows what may end it. Nothing is saved up over a pause but `CATCH_UP_S`, so that the line stays even.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

CATCH_UP_S = 0.25
"""The seconds whose unused bytes may be moved at once later: a thread that waits wakes a little late each time."""

MIN_BYTES_PER_S = 10_000
"""A PDU of 128 KiB takes 13 s then; peers that wait for the rest of one give up after half a minute or so."""

RATE_EXPECTED = 'a rate from 10 kB/s on such as "20 MB/s", "500 kB/s" or "100 Mbit/s"'

_PIECE_S = 0.25
_LEAST_PIECE_BYTES = 16_384
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([kMG])(B|bit)/s", re.ASCII)
_POWERS = {"k": 1e3, "M": 1e6, "G": 1e9}


def parse_rate(text: str) -> float:
    """Return how many bytes a second `text` says: a number and kB/s, MB/s, GB/s (of 1000), kbit/s, Mbit/s or Gbit/s.

    Raises:
        ValueError: it is no such rate; the message says what was expected.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(RATE_EXPECTED)
    number, power, unit = found.groups()
    bytes_per_s = float(number) * _POWERS[power] / (8 if unit == "bit" else 1)
    if bytes_per_s < MIN_BYTES_PER_S:
        raise ValueError(RATE_EXPECTED)
    return bytes_per_s


@dataclass(frozen=True, slots=True)
class Bucket:
    """The fill of the bucket: at `bytes_per_s` all the bytes that were taken are moved at `free_at`, monotonic seconds. Pure."""

    bytes_per_s: float
    free_at: float = 0.0

    def take(self, count: int, now: float) -> tuple[Bucket, float]:
        """Return the bucket after `count` bytes were taken at `now`, and for how many seconds to wait before they are moved."""
        begin = max(self.free_at, now - CATCH_UP_S)
        return replace(self, free_at=begin + count / self.bytes_per_s), max(0.0, begin - now)


class Throttle:
    """A bucket that threads share. Every method from any thread."""

    def __init__(self, bytes_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.piece_bytes = max(_LEAST_PIECE_BYTES, int(bytes_per_s * _PIECE_S))
        """The bytes that a thread may take at a time and wait a moment only, where nobody else moves anything."""

        self._bucket = Bucket(bytes_per_s)
        self._clock = clock
        self._taken_at = 0.0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, max_rate: str | None) -> Self | None:
        """Return the throttle of a `max_rate` as the configuration has it; None where it sets none."""
        return None if max_rate is None else cls(parse_rate(max_rate))

    @property
    def taken_at(self) -> float:
        """The time when bytes were last taken, monotonic seconds; 0.0 where none were."""
        return self._taken_at

    def take(self, count: int) -> float:
        """Take `count` bytes and return for how many seconds to wait before they are moved; 0.0 is at once."""
        with self._lock:
            self._taken_at = self._clock()
            self._bucket, wait_s = self._bucket.take(count, self._taken_at)
        return wait_s
