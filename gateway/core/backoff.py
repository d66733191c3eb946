"""The pause before something that failed is tried again. Pure; whoever asks adds the jitter that suits."""

from __future__ import annotations

MAX_DOUBLINGS = 32
"""More of them change nothing, and would overflow."""


def doubling_s(first_s: float, longest_s: float, failures: int) -> float:
    """Return the seconds to wait after so many `failures` in a row (from 1): `first_s`, then twice as long each, to `longest_s`."""
    return min(longest_s, first_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS))
