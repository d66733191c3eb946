"""The result of a cycle of a sync, as plain data for the log, the terminal and `gateway status`. Pure; no patient data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from gateway.core.domain import VerdictKind
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


@dataclass(frozen=True)
class Cycle:
    """One cycle: what the look found, and what was moved since the last one ended.

    Of the studies `found`, `missing` lack something that can be fetched: `started` now, or `paused` after a try that did not help.
    `underway` are being retrieved or delivered, `growing` have not stopped growing. `moved` studies came whole, `unfinished` did
    not. `at` is UTC seconds since the epoch, `look_s` how long the look took, `over_s` the time that the moved ones are of;
    `remarks` say what is to be known of the answers of the sides.
    """

    name: ClassVar[str] = "cycle"
    sync: str
    source: str
    number: int
    at: float
    look_s: float
    over_s: float
    found: int = 0
    missing: int = 0
    started: int = 0
    paused: int = 0
    underway: int = 0
    growing: int = 0
    moved: int = 0
    unfinished: int = 0
    series: int = 0
    instances: int = 0
    bytes: int = 0
    error: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def instances_a_minute(self) -> float:
        """The rate at which instances came."""
        return round(self.instances / self.over_s * 60.0, 1) if self.over_s > 0 else 0.0


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


def cycle_json(one: Cycle) -> dict[str, Any]:
    """Return a cycle as one JSON object."""
    return {"event": one.name, **asdict(one), "instances_a_minute": one.instances_a_minute}


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
