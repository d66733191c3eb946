"""Wall clocks that a test sets, and hours to go with them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.core.schedule import Schedule, Span

NIGHTS = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])
HOUR = 3600.0


class WallClock:
    """A wall clock that a test sets, in the days after tomorrow, so that what is recorded now is due; it goes on from there."""

    def __init__(self, hour: float) -> None:
        self._noon = (datetime.now(UTC) + timedelta(days=2)).replace(hour=12, minute=0, second=0).timestamp()
        self.set(hour)

    def set(self, hour: float) -> None:
        """Make it `hour` o'clock."""
        self._ahead = self._noon + (hour - 12) * HOUR - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead


class Watched(WallClock):
    """A wall clock that knows how often it was looked at."""

    def __init__(self, hour: float) -> None:
        self.looks: list[float] = []
        super().__init__(hour)

    def __call__(self) -> float:
        now = super().__call__()
        self.looks.append(now)
        return now
