"""The number of studies that a migration moves at a time: one more while it goes well, half as many where it does not. Pure.

Additive increase, multiplicative decrease, as TCP finds out what a path bears. A source that is busy, stalls or breaks says that
it was too many at once; so does a rate that fell after one more was begun.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FALLEN = 0.7
"""A rate that is less than this share of what fewer at a time brought has fallen."""

SAME_TROUBLE_S = 5.0
"""Trouble within so many seconds is the same."""

MIN_EPOCH = 4
"""Studies after which a rate is known at the least: a few small ones say little."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The number of studies that may move at a time: `limit`, from 1 to `most`, and what was seen since it was set.

    `rate` is what the last epoch but this one brought, in instances a second; `began` is when this one began, in monotonic
    seconds, and `studies` and `instances` what it brought so far. `troubled_at` is when it was last halved for trouble.
    """

    most: int
    limit: int = 1
    rate: float = 0.0
    raised: bool = False
    began: float = 0.0
    studies: int = 0
    instances: int = 0
    troubled_at: float = -math.inf

    def troubled(self, now: float) -> Pace:
        """Return the pace after the source was busy, stalled or broke off: half of it, and a new epoch.

        Others that are under way may meet the same trouble: for `SAME_TROUBLE_S` it counts once.
        """
        if now - self.troubled_at < SAME_TROUBLE_S:
            return self
        return Pace(self.most, limit=max(1, self.limit // 2), began=now, troubled_at=now)

    def moved(self, instances: int, now: float) -> Pace:
        """Return the pace after a study came whole with so many instances."""
        so_far = replace(self, studies=self.studies + 1, instances=self.instances + instances)
        if so_far.studies < max(MIN_EPOCH, 2 * self.limit) or now <= self.began:
            return so_far
        return so_far._next_epoch(now)

    def _next_epoch(self, now: float) -> Pace:
        rate = self.instances / (now - self.began)
        if self.raised and rate < FALLEN * self.rate:
            limit, raised = max(1, self.limit // 2), False
        else:
            limit, raised = min(self.most, self.limit + 1), self.limit < self.most
        return replace(self, limit=limit, raised=raised, rate=rate, began=now, studies=0, instances=0)
