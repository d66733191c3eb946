"""Comparing what two places hold: studies, series, instances, and what is in them; and bringing to the one what only the other has.

A planner on top of `gateway.archives.places`, which says what a place holds, and of `gateway.retrieve`, which brings what is
missing. `request`, `differences` and `repair` are pure; `gateway.codec.contents` compares files; `runner` asks and acts, on trio.
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.jobs.compare.differences import Difference, Kind
    from gateway.jobs.compare.request import CompareRequest, Level, Repair
    from gateway.jobs.compare.runner import Comparison, Outcome
    from gateway.jobs.compare.service import Comparisons, Repaired
else:
    __getattr__ = lazily(
        __name__,
        {
            "differences": (
                "Difference",
                "Kind",
            ),
            "request": (
                "CompareRequest",
                "Level",
                "Repair",
            ),
            "runner": (
                "Comparison",
                "Outcome",
            ),
            "service": (
                "Comparisons",
                "Repaired",
            ),
        },
    )

__all__ = ["CompareRequest", "Comparison", "Comparisons", "Difference", "Kind", "Level", "Outcome", "Repair", "Repaired"]
