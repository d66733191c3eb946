"""The retrievals of a comparison's repair, within hours: at their end a C-MOVE ends between instances, and none is moved twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import trio

from gateway import windows
from gateway.compare.hours import Hours
from gateway.compare.repair import Fetch
from gateway.compare.runner import fetch_all
from gateway.domain import VerdictKind
from gateway.retrieve import Errand, Verdict, Wanted
from gateway.schedule import Schedule, Span
from gateway.windows import Window
from tests.retrieve.conftest import Bench
from tests.support.pacs import Order, honest

NIGHTS = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])


async def test_a_repair_is_stopped_at_the_end_of_its_hours_and_carried_on(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "LOOK_EVERY_S", 0.01)
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
        night[0] = True

    here = bench(script=until_morning)
    hours = Hours(Window(NIGHTS, clock=lambda: datetime(2026, 11, 25, 22 if night[0] else 12, tzinfo=UTC)), evening)
    errand = Errand("compare", "fingerprint", "{}", ("copy",))
    with trio.fail_after(60):
        _, verdicts = await fetch_all(here.retriever, "archive", errand, [Fetch(Wanted(here.study))], hours, at_a_time=1)

    (verdict,) = verdicts
    assert (verdict.kind, verdict.received) == (VerdictKind.COMPLETE, 5)
    assert len(here.pacs.sent) == len(set(here.pacs.sent)) == 5


async def test_parts_of_one_study_do_not_get_in_each_others_way(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series and single instances of one study: broken off in the first, both come whole, each with its own verdict."""
    monkeypatch.setattr(windows, "LOOK_EVERY_S", 0.01)
    night = [True]

    def until_morning(order: Order) -> None:
        if order.number > 1:
            honest(order)
            return
        night[0] = False
        order.wait_for_cancel()
        order.final(0xFE00, 0)

    async def evening() -> None:
        night[0] = True

    here = bench(script=until_morning)
    series = {str(one.SeriesInstanceUID) for one in here.pacs.datasets}
    first, second = sorted(series)
    single = next(str(one.SOPInstanceUID) for one in here.pacs.datasets if one.SeriesInstanceUID == second)
    wanted = [Wanted(here.study, series=frozenset({first})), Wanted(here.study, instances=frozenset({single}))]
    hours = Hours(Window(NIGHTS, clock=lambda: datetime(2026, 11, 25, 22 if night[0] else 12, tzinfo=UTC)), evening)
    errand = Errand("compare", "fingerprint", "{}", ("copy",))
    with trio.fail_after(60):
        _, verdicts = await fetch_all(here.retriever, "archive", errand, list(map(Fetch, wanted)), hours, at_a_time=2)

    assert [(one.kind, one.expected, one.received) for one in verdicts] == [
        (VerdictKind.COMPLETE, 3, 3),
        (VerdictKind.COMPLETE, 1, 1),
    ]
    assert len({one.retrieval_id for one in verdicts}) == 2
