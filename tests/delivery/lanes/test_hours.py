"""A destination with hours: outside of them nothing begins, what runs stops between instances, and nothing is lost by it."""

from __future__ import annotations

import threading
from zoneinfo import ZoneInfo

import pytest
import trio

from gateway.core.domain import Consignment
from gateway.core.errors import PeerUnreachable
from gateway.core.schedule import Schedule
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.lanes import hours as hours_module
from gateway.delivery.lanes.hours import Hours
from tests.delivery.scripted import Scripted, states_are
from tests.support.clocks import NIGHTS, WallClock, Watched
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(hours_module, "LONGEST_SLEEP_S", 0.02)


@pytest.fixture
async def dispatching(store, nursery):
    async def run(*destinations, clock):
        dispatcher = Dispatcher(store.ledger, destinations, clock=clock)
        await nursery.start(dispatcher.run)
        return dispatcher

    yield run
    nursery.cancel_scope.cancel()


async def looked(hours: list[float], times: int = 5) -> None:
    """Wait until the workers have looked at the clock some more times."""
    seen = len(hours)
    await until(lambda: len(hours) >= seen + times, "a look at the clock")


def test_hours_say_for_how_long_they_are_shut(monkeypatch):
    monkeypatch.setattr(hours_module, "LONGEST_SLEEP_S", 60.0)
    assert Hours(None, WallClock(12)).shut_s() == 0.0
    assert Hours(NIGHTS, WallClock(20)).shut_s() == 0.0
    assert Hours(NIGHTS, WallClock(12)).shut_s() == 60.0, "no longer than until the clock is looked at again"
    assert Hours(NIGHTS, WallClock(18 + 59.9 / 60)).shut_s() == pytest.approx(6.0, abs=1.0)
    assert Hours(Schedule.weekly(ZoneInfo("UTC"), []), WallClock(12)).shut_s() == 60.0


async def test_what_waits_is_delivered_once_the_hours_begin(store, dispatching):
    clock, a = Watched(12), Scripted("a", hours=NIGHTS)
    store.add_synthetic("a", count=3)
    await dispatching(a, clock=clock)
    await looked(clock.looks)
    assert store.states() == ["pending"] * 3
    assert a.batches == []
    clock.set(19.5)
    await until(states_are(store, *["verified"] * 3), "delivered at night")


async def test_a_destination_with_hours_costs_the_others_nothing(store, dispatching):
    clock, a, b = Watched(12), Scripted("a", hours=NIGHTS), Scripted("b")
    store.add_synthetic("a", "b", count=3)
    await dispatching(a, b, clock=clock)
    await until(states_are(store, *["verified"] * 3, to="b"), "delivered at the one without hours")
    assert store.states(to="a") == ["pending"] * 3


async def test_a_batch_stops_between_instances_when_the_hours_end(store, dispatching):
    clock = Watched(5.5)

    def answer(item: Consignment) -> Outcome:
        if len(a.delivered) == 1:
            clock.set(6)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    a = Scripted("a", answer=answer, hours=NIGHTS)
    uids = store.add_synthetic("a", count=5)
    await dispatching(a, clock=clock)
    await until(states_are(store, "verified", "verified", "pending", "pending", "pending"), "the rest waits")
    await looked(clock.looks)
    assert a.delivered == uids[:2]
    assert [(row.attempts, row.reason, bool(row.uncertain)) for row in store.rows()[2:]] == [(0, None, False)] * 3
    await until(lambda: a.closed == 1, "its association is released")
    clock.set(19)
    await until(states_are(store, *["verified"] * 5), "the rest at night")
    assert a.delivered == uids


async def test_a_person_who_retries_does_not_open_it(store, dispatching):
    clock, a = Watched(12), Scripted("a", hours=NIGHTS)
    store.add_synthetic("a")
    dispatcher = await dispatching(a, clock=clock)
    dispatcher.retry("a")
    dispatcher.nudge("a")
    await looked(clock.looks)
    assert store.states() == ["pending"]


async def test_a_destination_that_is_down_when_its_hours_end_is_left_alone(store, dispatching):
    clock, tried = Watched(20), threading.Event()

    def refuse() -> None:
        clock.set(12)
        tried.set()
        raise PeerUnreachable("connection refused")

    a = Scripted("a", connect=refuse, hours=NIGHTS)
    store.add_synthetic("a")
    await dispatching(a, clock=clock)
    await trio.to_thread.run_sync(tried.wait, 10.0)
    await looked(clock.looks, 20)
    assert len(a.batches) == 0
    assert store.rows()[0].attempts == 0
    clock.set(43)
    a.connect = lambda: None
    await until(states_are(store, "verified"), "delivered the next night")
