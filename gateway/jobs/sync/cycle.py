"""One cycle of a sync as plain data: for the log, the terminal, `gateway status` and who follows it. Pure; no patient data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Cycle:
    """One cycle: what the look found, and what was moved since the last one ended.

    Of the studies `found`, `missing` lack something that can be fetched: `started` now, or `paused` after a try that did not help.
    `underway` are being retrieved or delivered, `growing` have not stopped growing. `moved` studies came whole, `unfinished` did
    not. `at` is UTC seconds since the epoch, `look_s` how long the look took, `over_s` the time that the moved ones are of;
    `remarks` say what is to be known of the answers of the sides. `instances_a_minute` is the rate at which instances came.
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
    instances_a_minute: float = field(init=False)

    def __post_init__(self) -> None:
        rate = round(self.instances / self.over_s * 60.0, 1) if self.over_s > 0 else 0.0
        object.__setattr__(self, "instances_a_minute", rate)
