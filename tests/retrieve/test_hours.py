"""The retrievals of a comparison's repair, within hours: at their end a C-MOVE ends between instances, and none is moved twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from zoneinfo import ZoneInfo

import pytest
import trio
from sqlalchemy import select

from gateway.core.domain import DeliveryState, VerdictKind
from gateway.core.schedule import Schedule, Span
from gateway.jobs import working_hours
from gateway.jobs.compare.hours import Hours
from gateway.jobs.compare.repair import Fetch
from gateway.jobs.compare.runner import fetch_all
from gateway.jobs.working_hours import Window
from gateway.ledger.database import transitions
from gateway.ledger.database.schema import deliveries
from gateway.retrieve import JobSpec, Verdict, Wanted
from tests.retrieve.conftest import Bench
from tests.support.pacs import Order, honest

NIGHTS = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])


def deliver(here: Bench) -> None:
    """Have what came so far delivered and proved."""
    with here.ledger.read() as connection:
        ids = list(connection.execute(select(deliveries.c.id)).scalars())
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.VERIFIED):
        here.ledger.write(partial(transitions.move, delivery_ids=ids, new=state, now=time.time()))


async def test_a_repair_is_stopped_at_the_end_of_its_hours_and_carried_on(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_hours, "LOOK_EVERY_S", 0.01)
    night, verdicts, cancelled = [True], list[Verdict](), list[int]()

    def until_morning(order: Order) -> None:
        if order.number > 1:
            honest(order)
            return
        with order.sending() as send:
            for dataset in order.selected[:2]:
                send(dataset)
        night[0] = False
        order.wait_for_cancel()
        cancelled.append(order.number)
        order.final(0xFE00, 2)

    async def evening() -> None:
        assert (len(here.pacs.sent), cancelled, verdicts) == (2, [1], [])
        deliver(here)
        night[0] = True

    here = bench(script=until_morning)
    hours = Hours(Window(NIGHTS, clock=lambda: datetime(2026, 11, 25, 22 if night[0] else 12, tzinfo=UTC)), evening)
    spec = JobSpec("compare", "fingerprint", "{}", ("copy",))
    with trio.fail_after(60):
        _, verdicts = await fetch_all(here.retriever, "archive", spec, [Fetch(Wanted(here.study))], hours, at_a_time=1)

    (verdict,) = verdicts
    assert (verdict.kind, verdict.received) == (VerdictKind.COMPLETE, 5)
    assert len(here.pacs.sent) == len(set(here.pacs.sent)) == 5
