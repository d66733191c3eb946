"""The time that a migration still takes, from what it brought so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress: portions (days) of all and of those listed, instances listed, and those that came in this run's `seconds`."""

    portions: int
    listed: int
    instances: int
    moved: int
    this_run: int
    seconds: float


MIN_INSTANCES = 50
"""Fewer than these say nothing about the rate."""


def seconds_left(progress: Progress) -> float | None:
    """Return the estimate in seconds, None where nothing is known yet.

    A portion that is not listed yet is taken to hold as much as one that is.
    """
    if progress.this_run < MIN_INSTANCES or progress.seconds <= 0:
        return None
    unlisted = progress.portions - progress.listed
    if unlisted and not progress.listed:
        return None
    expected = progress.instances + (unlisted * progress.instances / progress.listed if unlisted else 0.0)
    return max(0.0, expected - progress.moved) * progress.seconds / progress.this_run
