"""When a comparison is due, on days of 23 and 25 hours too."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from gateway.compare.daily import request_of
from gateway.dates import next_time, time_of_day
from gateway.settings import CompareTable

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
