"""Tasks that wait for hours: they wake when it opens, hear when it closes, and notice that the clock was set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.testing

from gateway.core.schedule import Schedule, Span
from gateway.jobs.working_hours import LOOK_EVERY_S, Window

HOUR = 3600.0
NIGHTS = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])


@dataclass
class WallClock:
    """A wall clock that goes with trio's and can be set."""

    began: datetime
    set_by: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return self.began + self.set_by + timedelta(seconds=trio.current_time())


@pytest.fixture
def at() -> Callable[[int], WallClock]:
    return lambda hour: WallClock(datetime(2026, 11, 25, hour, tzinfo=UTC))


Clocks = Callable[[int], WallClock]


async def test_without_a_schedule_it_is_open_and_never_closes(autojump_clock: trio.testing.MockClock) -> None:
    window = Window(None)
    with trio.move_on_after(30 * 24 * HOUR):
        async with window.open() as closing:
            assert window.is_open()
            await closing.wait()
        raise AssertionError("it closed")
    assert window.next_change() is None


async def test_who_waits_goes_on_when_it_opens(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    window = Window(NIGHTS, clock=at(12))
    assert window.next_change() == datetime(2026, 11, 25, 19, tzinfo=UTC)
    async with window.open() as closing:
        assert trio.current_time() == pytest.approx(7 * HOUR, abs=1)
        assert not closing.is_set()


async def test_it_says_when_it_closes_and_what_runs_goes_on(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    window = Window(NIGHTS, clock=at(20))
    async with window.open() as closing:
        assert trio.current_time() == 0.0
        await closing.wait()
        assert trio.current_time() == pytest.approx(10 * HOUR, abs=1)
        await trio.sleep(HOUR)
    async with window.open() as again:
        assert window.closing is again
        assert not again.is_set()
        assert trio.current_time() == pytest.approx(23 * HOUR, abs=1)


async def test_what_is_to_run_within_the_hours_only_is_cancelled_when_they_end(
    autojump_clock: trio.testing.MockClock, at: Clocks
) -> None:
    async with Window(NIGHTS, clock=at(20)).while_open() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(10 * HOUR, abs=1)


async def test_what_ends_before_is_not_cancelled(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    async with Window(NIGHTS, clock=at(20)).while_open() as scope:
        await trio.sleep(HOUR)
    assert not scope.cancelled_caught
    assert trio.current_time() == pytest.approx(HOUR)


async def test_several_tasks_share_the_hours(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    window = Window(NIGHTS, clock=at(18))
    closings: list[trio.Event] = []

    async def work() -> None:
        async with window.open() as closing:
            closings.append(closing)
            await closing.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(work)
    assert closings[0] is closings[1]


async def test_a_clock_that_is_set_is_noticed_within_a_minute(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    clock = at(12)
    window = Window(NIGHTS, clock=clock)

    async def set_clock() -> None:
        await trio.sleep(HOUR + 7)
        clock.set_by = timedelta(hours=8)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_clock)
        await window.opened()
    assert trio.current_time() <= HOUR + 7 + LOOK_EVERY_S


async def test_what_goes_wrong_inside_comes_out_as_it_was_raised(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    window = Window(NIGHTS, clock=at(20))
    with pytest.raises(KeyError) as raised:
        async with window.open():
            raise KeyError("x") from ValueError("y")
    assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(KeyError):
        async with window.while_open():
            raise KeyError("x")


async def test_cancelling_from_outside_ends_it(autojump_clock: trio.testing.MockClock, at: Clocks) -> None:
    with trio.move_on_after(HOUR) as outer:
        async with Window(NIGHTS, clock=at(20)).while_open() as inner:
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert not inner.cancelled_caught
