"""Comparisons that the configuration asks for, each at its time of day. Runs in trio."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path

import trio

from gateway.config.settings import CompareTable
from gateway.core import dates
from gateway.core.errors import GatewayError, GatewayStopping, JobFailed
from gateway.core.files import make_private_folder, unusable, write_file
from gateway.core.log import get_logger
from gateway.core.schedule import parse_days, parse_zone
from gateway.jobs.compare.request import CompareRequest, Level, Repair
from gateway.jobs.compare.runner import Outcome
from gateway.jobs.compare.service import Comparisons, Settle
from gateway.jobs.starts import Starts
from gateway.jobs.working_hours import Window

log = get_logger()

LOOK_EVERY_S = 60.0
"""A clock that was set is noticed within this."""


@dataclass
class Last:
    """The state of a comparison: when it is due, and what it found the last time, empty where it was never carried out."""

    due: datetime
    at: datetime | None = None
    different: int | None = None
    error: str = ""


@dataclass
class Daily:
    """Runs the ``[[compare]]`` tables; `reports` is where each leaves what it found, `last` how each stands, by name.

    `hours` makes the window of the schedule that a table names.
    """

    comparisons: Comparisons
    reports: Path
    settle: Settle
    hours: Callable[[str | None], Window]
    now: Callable[[], datetime]
    last: dict[str, Last] = field(default_factory=dict)
    starts: Starts | None = None

    async def run(self, table: CompareTable, running: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Carry out `table` whenever it is due, until the gateway stops; `running` is entered for as long as one takes."""
        zone = parse_zone(table.time_zone) if table.time_zone else self.now().astimezone().tzinfo
        assert zone is not None
        weekdays = {day for text in table.on for day in parse_days(text)}
        while True:
            due = dates.next_time(self.now(), dates.time_of_day(table.at), weekdays, zone)
            last = self.last.setdefault(table.name, Last(due))
            last.due = due
            await self._until(due)
            try:
                async with running(), self.hours(table.when).while_open() as open_, self._counted(f"compare {table.name}"):
                    await self._once(table, last, zone)
                if open_.cancelled_caught:
                    last.error = "broken off at the end of its hours"
                    log.warning("comparison_broken_off", comparison=table.name)
            except GatewayStopping:
                log.info("comparison_stopped", comparison=table.name)
                return

    @asynccontextmanager
    async def _counted(self, name: str) -> AsyncIterator[None]:
        """Begin only what did not end the gateway the last two times; else wait for a person."""
        if self.starts is None:
            yield
            return
        await self.starts.begin(name)
        try:
            yield
        finally:
            await self.starts.end(name)

    async def _until(self, due: datetime) -> None:
        while True:
            left = (due - self.now()).total_seconds()
            if left <= 0:
                return
            await trio.sleep(min(left, LOOK_EVERY_S))

    async def _once(self, table: CompareTable, last: Last, zone: tzinfo) -> None:
        last.at, last.different, last.error = self.now(), None, ""
        log.info("comparison_started", comparison=table.name, a=table.a, b=table.b)
        try:
            outcome, repaired = await self.comparisons.carry_out(
                request_of(table, self.now().astimezone(zone)), _nobody, self.settle
            )
            last.different = len(outcome.differences)
        except GatewayError as error:
            last.error = str(error)
        except Exception as error:  # the root of a comparison: it fails, and there is another one
            last.error = str(JobFailed.of(error))
            log.exception("comparison_broke", comparison=table.name)
        if last.error:
            log.error("comparison_failed", comparison=table.name, error=last.error)
            return
        counts = {
            "studies": outcome.studies,
            "instances": outcome.instances,
            "repaired": sum(len(one.verdicts) for one in repaired),
        }
        tell = log.info if outcome.same else log.warning
        tell("comparison_ended", comparison=table.name, different=last.different, **counts)
        try:
            await trio.to_thread.run_sync(partial(self._write, table.name, outcome))
        except OSError as error:
            # A full disk costs the report, not the gateway: the log above has the verdict.
            last.error = f"the report cannot be written: {unusable(error)}"
            log.error("comparison_report_failed", comparison=table.name, error=last.error)

    def _write(self, name: str, outcome: Outcome) -> None:
        """Leave what was found as ``compare-NAME.json``."""
        make_private_folder(self.reports)
        document = {"at": self.now().isoformat(), **asdict(outcome)}
        safe = "".join(character if character.isalnum() or character in "-_" else "_" for character in name)
        write_file(self.reports / f"compare-{safe}.json", json.dumps(document, indent=1).encode() + b"\n")


def request_of(table: CompareTable, now: datetime) -> CompareRequest:
    """Return what a table asks for on the day of `now`; pure."""
    first = now.date() - timedelta(days=table.last_days - 1)
    return CompareRequest(
        table.a,
        table.b,
        level=Level(table.level),
        first=first.isoformat(),
        last=now.date().isoformat(),
        query=table.query,
        content=table.content,
        repair=Repair(table.repair) if table.repair else None,
        ignore=table.ignore_missing_in or "",
    )


async def _nobody(_outcome: Outcome) -> None:
    """Tell nobody."""
