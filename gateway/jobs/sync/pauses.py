"""The pauses of a study: until one whose retrieval did not help is tried again, and one that agrees is compared again. Pure.

Times are monotonic seconds. A study is never given up while the window has it: the pauses grow, up to an hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.backoff import doubling_s

LONGEST_PAUSE_S = 3600.0
"""The longest time that a study waits for its next try."""

UNCOUNTED_S = 1800.0
"""The longest time that a study waits for its next comparison where a side does not count its instances."""


@dataclass(frozen=True)
class Attempt:
    """A retrieval that ended: what was `lacking` before it (comparable), how many in a row were for that, and how it ended."""

    lacking: object
    tries: int
    ended_at: float
    complete: bool


def attempted(earlier: Attempt | None, lacking: object, now: float, *, complete: bool) -> Attempt:
    """Return the attempt that ended at `now`, counted with the `earlier` ones that came to nothing.

    A complete one after which something else is lacking is the growth of the study, and begins anew. A complete one after which
    the same is lacking helped as little as one that failed: the destination took it and has it not.
    """
    grew = earlier is None or (earlier.complete and earlier.lacking != lacking)
    return Attempt(lacking, 1 if grew else earlier.tries + 1, now, complete)  # type: ignore[union-attr]


def may_try(earlier: Attempt | None, lacking: object, now: float, interval_s: float) -> bool:
    """Tell whether a study that lacks `lacking` may be retrieved now, with `interval_s` between two looks."""
    if earlier is None or (earlier.complete and earlier.lacking != lacking):
        return True
    return now >= earlier.ended_at + pause(earlier.tries, interval_s)


def pause(tries: int, interval_s: float) -> float:
    """Return the seconds between a failed try, the `tries`-th in a row, and the next: doubling from `interval_s`."""
    return max(interval_s, doubling_s(interval_s, LONGEST_PAUSE_S, tries))


def until_compared(agreed: int, interval_s: float, compare_every_s: float, *, counted: bool) -> float:
    """Return the seconds until a study that agreed in `agreed` comparisons in a row (1 or more) is compared by UIDs again.

    Where both sides count its instances a change shows in the counts, and `compare_every_s` is for what counts do not show.
    Where a side does not, only listing it shows that it grew: soon at first, then later and later, as it has been quiet longer.
    """
    if counted:
        return compare_every_s
    return min(compare_every_s, max(interval_s, doubling_s(interval_s, UNCOUNTED_S, agreed)))
