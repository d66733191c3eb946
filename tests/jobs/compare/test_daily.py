"""When a comparison is due, on days of 23 and 25 hours too."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.testing

from gateway.app.engine import Jobs
from gateway.config.settings import CompareTable
from gateway.core.dates import next_time, time_of_day
from gateway.jobs.compare import CompareRequest, Difference, Kind, Outcome, Repaired
from gateway.jobs.compare.daily import Daily, request_of
from gateway.jobs.working_hours import Window

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY, WEEKEND = range(7), (5, 6)


@pytest.mark.parametrize(
    ("now", "at", "days", "due"),
    [
        (datetime(2026, 11, 25, 1, 0, tzinfo=UTC), time(3), EVERY_DAY, datetime(2026, 11, 25, 2, 0, tzinfo=UTC)),
        (datetime(2026, 11, 25, 2, 0, tzinfo=UTC), time(3), EVERY_DAY, datetime(2026, 11, 26, 2, 0, tzinfo=UTC)),
        (datetime(2026, 11, 25, 12, 0, tzinfo=UTC), time(3), WEEKEND, datetime(2026, 11, 28, 2, 0, tzinfo=UTC)),
        (datetime(2026, 11, 28, 12, 0, tzinfo=UTC), time(3), (5,), datetime(2026, 12, 5, 2, 0, tzinfo=UTC)),
        (datetime(2026, 3, 28, 12, 0, tzinfo=UTC), time(2, 30), EVERY_DAY, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        (datetime(2026, 10, 24, 12, 0, tzinfo=UTC), time(2, 30), EVERY_DAY, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_the_next_time(now: datetime, at: time, days: tuple[int, ...], due: datetime) -> None:
    assert next_time(now, at, days, BERLIN).astimezone(UTC) == due


@pytest.mark.parametrize("text", ["24:00", "3", "03:60", "noon", "3:5"])
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match="a time of day"):
        time_of_day(text)


def test_the_days_of_a_comparison_end_today_where_its_clock_is() -> None:
    table = CompareTable(name="night", a="pacs", b="copy", last_days=3)
    late = datetime(2026, 11, 25, 23, 30, tzinfo=UTC).astimezone(BERLIN)
    request = request_of(table, late)
    assert (request.first, request.last) == ("2026-11-24", "2026-11-26")


@dataclass
class Night:
    """A comparison of the configuration with a clock that a test sets; it finds one difference each time."""

    reports: Path
    now: datetime
    carried_out: int = 0
    looked: trio.Event = field(default_factory=trio.Event)

    async def carry_out(self, _request: CompareRequest, _tell: object, _settle: object) -> tuple[Outcome, list[Repaired]]:
        self.carried_out += 1
        self.looked.set()
        return Outcome([Difference(Kind.ONLY_A, "1.2")], studies=3), []

    def daily(self) -> Daily:
        made = cast(Any, self)
        return Daily(made, self.reports, made, hours=lambda _when: Window(None), now=lambda: self.now)


async def test_a_comparison_is_carried_out_when_it_is_due_and_leaves_a_report(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    night = Night(tmp_path / "reports", datetime(2026, 11, 25, 1, 0, tzinfo=UTC))
    daily, table = night.daily(), CompareTable(name="night / 1", a="pacs", b="copy", time_zone="UTC")
    jobs = Jobs()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(daily.run, table, jobs.running)
        await trio.sleep(600)
        assert (night.carried_out, daily.last["night / 1"].due.hour) == (0, 3)
        night.now = datetime(2026, 11, 25, 3, 0, 1, tzinfo=UTC)
        await night.looked.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
        nursery.cancel_scope.cancel()

    assert (night.carried_out, daily.last["night / 1"].different) == (1, 1)
    (report,) = night.reports.iterdir()
    assert (report.name, report.stat().st_mode & 0o777) == ("compare-night___1.json", 0o600)
    assert json.loads(report.read_text())["differences"][0]["kind"] == "only in A"


async def test_a_report_that_cannot_be_written_is_said_and_the_gateway_goes_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / "reports").write_text("a file where the folder should be")
    night = Night(tmp_path / "reports", datetime(2026, 11, 25, 3, 0, 0, tzinfo=UTC))
    daily, table = night.daily(), CompareTable(name="night", a="pacs", b="copy", time_zone="UTC", at="03:00")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daily.run, table, Jobs().running)
        await trio.sleep(60)
        night.now = datetime(2026, 11, 26, 3, 0, 1, tzinfo=UTC)
        await night.looked.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
        nursery.cancel_scope.cancel()
    assert daily.last["night"].different == 1
    assert "cannot be written" in daily.last["night"].error
