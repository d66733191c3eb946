"""The result of a cycle of a sync, made of its look and of what was moved. Pure; no patient data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.core.domain import VerdictKind
from gateway.jobs.sync.cycle import Cycle
from gateway.jobs.sync.look import LookResult
from gateway.jobs.sync.study import Missing, State
from gateway.retrieve import Verdict


@dataclass
class Moved:
    """The retrievals since the last report: whole studies, those that did not come whole, and what came."""

    studies: int = 0
    unfinished: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0

    def add(self, verdict: Verdict, missing: Missing) -> None:
        """Count a retrieval that ended."""
        if verdict.kind is VerdictKind.COMPLETE:
            self.studies += 1
            self.series += missing.series
        else:
            self.unfinished += 1
        self.instances += verdict.received
        self.bytes += verdict.bytes


def cycle(
    result: LookResult, moved: Moved, *, sync: str, source: str, number: int, at: float, look_s: float, over_s: float
) -> Cycle:
    """Return the report of a cycle."""
    started = len(result.missing)
    return Cycle(
        sync=sync,
        source=source,
        number=number,
        at=at,
        look_s=round(look_s, 3),
        over_s=round(over_s, 3),
        found=result.found,
        missing=started + result.states[State.PAUSED],
        started=started,
        paused=result.states[State.PAUSED],
        underway=result.states[State.UNDERWAY],
        growing=result.states[State.GROWING],
        moved=moved.studies,
        unfinished=moved.unfinished,
        series=moved.series,
        instances=moved.instances,
        bytes=moved.bytes,
        error=result.error,
        remarks=tuple(result.remarks),
    )


def missing_json(missing: Missing) -> dict[str, Any]:
    """Return what would be moved of a study as one JSON object."""
    wanted = missing.wanted
    return {
        "study_instance_uid": wanted.study_instance_uid,
        "destinations": list(missing.destinations),
        "series_instance_uids": None if wanted.series is None else sorted(wanted.series),
        "series": missing.series,
        "instances": missing.instances,
    }
