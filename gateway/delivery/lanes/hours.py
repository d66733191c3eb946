"""The hours of a destination, as its threads ask by their clocks whether it may be delivered to now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.core.schedule import Schedule
from gateway.delivery.lanes.worker_state import LONGEST_SLEEP_S


@dataclass(frozen=True, slots=True)
class Hours:
    """The hours of a schedule, or all of them; `clock` gives UTC seconds since the epoch. From any thread."""

    schedule: Schedule | None
    clock: Callable[[], float]

    def is_open(self) -> bool:
        """Tell whether it may be delivered to now."""
        return self.schedule is None or self.schedule.is_open(self._now())

    def shut_s(self) -> float:
        """Return for how many seconds it may not be delivered to: 0.0 where it may, and no more than until to look again."""
        if self.schedule is None or self.schedule.is_open(now := self._now()):
            return 0.0
        opens = self.schedule.next_change(now)
        return LONGEST_SLEEP_S if opens is None else min((opens - now).total_seconds(), LONGEST_SLEEP_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)
