"""The growth of a series, and whether it has stopped, judged by what the looks saw. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """The number of instances of a series, in how many looks in a row (`looks`), and since when."""

    count: int
    looks: int
    since: float


@dataclass(frozen=True)
class Patience:
    """The rule for a settled series: unchanged in `looks` looks in a row or, where `quiet_s` is given, for so long instead."""

    looks: int = 2
    quiet_s: float | None = None

    def settled(self, seen: Seen | None, now: float) -> bool:
        """Tell whether the series is settled as of the look at `now`; one that was never seen is not."""
        if seen is None:
            return False
        return seen.looks >= self.looks if self.quiet_s is None else now - seen.since >= self.quiet_s


TWO_LOOKS = Patience()

AT_ONCE = Patience(looks=1)
"""A series is taken as it stands."""


def observe(before: Mapping[str, Seen], counts: Mapping[str, int], now: float) -> dict[str, Seen]:
    """Return what is known of the series after a look that saw `counts` (Series Instance UID to instances).

    Any change begins anew, a series that shrank too; one that is gone is forgotten.
    """
    return {uid: _seen(before.get(uid), count, now) for uid, count in counts.items()}


def _seen(earlier: Seen | None, count: int, now: float) -> Seen:
    if earlier is None or earlier.count != count:
        return Seen(count, 1, now)
    return Seen(count, earlier.looks + 1, earlier.since)
