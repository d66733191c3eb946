"""A migration between a source that does as scripted and a ledger that is real: what is moved when, how often, and what is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio

from gateway.app.engine import Jobs
from gateway.core.domain import VerdictKind
from gateway.core.errors import JobFailed, PeerUnreachable, UsageError
from gateway.jobs.migrate import Listed, MigrateContext, MigrationRequest, Migrations, Running
from gateway.jobs.migrate import runner as runners
from gateway.ledger.jobs import planning, starts
from tests.retrieve.conftest import DEADLINE_S, Bench, study
from tests.retrieve.conftest import bench as bench  # noqa: PLC0414 - a fixture
from tests.support.pacs import Order, honest
from tests.support.waiting import until

Start = Callable[..., Bench]
Days = dict[str, Listed | Exception | list[Listed | Exception]]
DAY = "2024-02-29"


@dataclass
class Office:
    """Migrations on a bench; `days` says what each day lists, by label, or how that fails, or one after the other."""

    desk: Bench
    days: Days
    asked: list[str] = field(default_factory=list)
    why: str = ""
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self) -> None:
        context = MigrateContext(
            self.desk.retriever,
            self.desk.ledger,
            self.desk.reception.recorder.flush,
            lists=self._list,
            crowded=lambda _to, _share: self.why,
            original=lambda _name: pytest.fail("nothing is to be deleted"),
        )
        self.migrations = Migrations(self.desk.settings, context, possible=lambda _source: ("copy",), whole=self._whole)

    async def _list(self, _source: str, keys: Mapping[str, str]) -> Listed:
        day = datetime.strptime(keys["StudyDate"], "%Y%m%d").replace(tzinfo=UTC).date().isoformat()
        self.asked.append(day)
        found = self.days.get(day, Listed(()))
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def _whole(self) -> AbstractAsyncContextManager[None]:
        return self.jobs.running()

    async def migrate(self, *, first: str = DAY, last: str = DAY, **more: Any) -> Running:
        """Migrate to the end."""
        request = MigrationRequest("archive", first, last, destinations=("copy",), **more)
        with trio.fail_after(DEADLINE_S):
            running = await self.migrations.start(request, detached=False)
            await running.ended.wait()
        return running

    def report(self, job_id: int = 1) -> list[planning.StudyReport]:
        with self.desk.ledger.read() as connection:
            return planning.report(connection, job_id)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "RETRY_PAUSE_S", 0.05)
    monkeypatch.setattr(runners, "CROWDED_LOOK_S", 0.05)


def datasets(count: int) -> list[Any]:
    return [dataset for seed in range(1, count + 1) for dataset in study(seed=seed, series=(2,))]


def uids(desk: Bench) -> list[str]:
    return list(dict.fromkeys(str(dataset.StudyInstanceUID) for dataset in desk.pacs.datasets))


def listed(studies: Collection[str], doubt: str = "") -> Listed:
    return Listed(tuple((uid, 2) for uid in studies), doubt)


async def office(nursery: trio.Nursery, desk: Bench, days: Days) -> Office:
    made = Office(desk, days)
    await nursery.start(made.migrations.run)
    return made


async def test_every_study_of_every_day_is_moved_and_reported(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(5), source={"moves": 2})
    first, second = uids(desk)[:2], uids(desk)[1:]
    made = await office(nursery, desk, {DAY: listed(first), "2024-03-01": listed(second)})

    running = await made.migrate(last="2024-03-01")

    assert running.error is None
    rows = made.report()
    assert [(row.study_instance_uid, row.label) for row in rows] == [
        *((uid, DAY) for uid in first),
        *((uid, "2024-03-01") for uid in second[1:]),
    ]
    assert {(row.verdict, row.expected, row.received) for row in rows} == {(VerdictKind.COMPLETE, 2, 2)}
    assert all(row.bytes > 0 and row.seconds is not None for row in rows)
    assert sorted(desk.reception.arrived) == sorted(desk.pacs.uids())


async def test_given_again_it_lists_again_and_moves_only_what_is_new(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(3))
    made = await office(nursery, desk, {DAY: listed(uids(desk)[:2])})
    await made.migrate()
    made.days[DAY] = listed(uids(desk))

    await made.migrate()

    assert made.asked == [DAY, DAY]
    assert len(desk.pacs.orders) == 3
    assert len(made.report()) == 3


async def test_what_was_listed_and_complete_stays_so_when_it_is_cut_off(bench: Start, nursery: trio.Nursery) -> None:
    moved = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def script(order: Order) -> None:
        if order.number == 2:
            token.run_sync_soon(moved.set)
            order.wait_for_cancel()
            order.final(0xFE00)
        else:
            honest(order)

    desk = bench(datasets=datasets(3), script=script, source={"progress_timeout_s": DEADLINE_S})
    made = await office(nursery, desk, {DAY: listed(uids(desk))})
    with trio.fail_after(DEADLINE_S):
        running = await made.migrations.start(MigrationRequest("archive", DAY, DAY, destinations=("copy",)), detached=True)
        await moved.wait()
        await until(lambda: VerdictKind.COMPLETE in {row.verdict for row in made.report()}, "the first one has its verdict")
        await made.migrations.pause(running.migration.job_id or 0)
    assert [row.verdict for row in made.report()].count(VerdictKind.COMPLETE) == 1

    with trio.fail_after(DEADLINE_S):
        again = await made.migrations.resume(1)
        await again.ended.wait()

    assert made.asked == [DAY]
    orders = [str(order.identifier.StudyInstanceUID) for order in desk.pacs.orders]
    assert Counter(orders) == {orders[0]: 1, orders[1]: 2, **{uid: 1 for uid in uids(desk) if uid not in orders[:2]}}
    assert {row.verdict for row in made.report()} == {VerdictKind.COMPLETE}


async def test_a_detached_migration_is_resumed_once_at_the_next_start(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(1))
    made = await office(nursery, desk, {DAY: listed(uids(desk))})
    made.why = "the spool has no room"
    with trio.fail_after(DEADLINE_S):
        running = await made.migrations.start(MigrationRequest("archive", DAY, DAY, destinations=("copy",)), detached=True)
        made.jobs.stop()
        await running.ended.wait()
    assert desk.pacs.orders == []

    later = await office(nursery, desk, {DAY: listed(uids(desk))})
    with trio.fail_after(DEADLINE_S):
        await later.migrations.carry_on()
        (carried,) = later.migrations.running.values()
        await carried.ended.wait()
        assert len(desk.pacs.orders) == 1
        await later.migrations.carry_on()
        assert later.migrations.running == {}


async def test_it_waits_while_there_is_no_room_and_says_why(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(1))
    made = await office(nursery, desk, {DAY: listed(uids(desk))})
    made.why = "95% of the spool's file system is used, more than 90%"

    with trio.fail_after(DEADLINE_S):
        running = await made.migrations.start(MigrationRequest("archive", DAY, DAY, destinations=("copy",)), detached=False)
        await until(lambda: running.migration.waiting == made.why, "it waits")
        assert desk.pacs.orders == []
        made.why = ""
        await running.ended.wait()

    assert len(desk.pacs.orders) == 1


async def test_a_day_that_cannot_be_listed_is_told_and_listed_in_the_next_run(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(2))
    days: Days = {DAY: PeerUnreachable("refused"), "2024-03-01": listed(uids(desk)[:1])}
    made = await office(nursery, desk, days)

    running = await made.migrate(last="2024-03-01")

    assert running.migration.problems == {DAY: "refused"}
    assert running.migration.portions == (1, 2)
    made.days[DAY] = listed(uids(desk))
    again = await made.migrate(last="2024-03-01")
    assert again.migration.problems == {}
    assert {row.verdict for row in made.report()} == {VerdictKind.COMPLETE}
    assert len(desk.pacs.orders) == 2


async def test_a_day_that_cannot_be_listed_is_tried_once_more_after_the_others(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(2))
    first, second = uids(desk)
    made = await office(nursery, desk, {DAY: [PeerUnreachable("refused"), listed([first])], "2024-03-01": listed([second])})

    running = await made.migrate(last="2024-03-01")

    assert running.migration.problems == {}
    assert made.asked == [DAY, "2024-03-01", DAY]
    assert {row.study_instance_uid: row.verdict for row in made.report()} == dict.fromkeys((first, second), VerdictKind.COMPLETE)


async def test_an_incomplete_study_is_tried_once_more_after_the_others(bench: Start, nursery: trio.Nursery) -> None:
    def script(order: Order) -> None:
        order.final(0x0124) if order.number == 1 else honest(order)

    desk = bench(datasets=datasets(3), script=script)
    made = await office(nursery, desk, {DAY: listed(uids(desk))})

    await made.migrate()

    first, *others, last = [str(order.identifier.StudyInstanceUID) for order in desk.pacs.orders]
    assert (first, len({first, *others})) == (last, 3)
    assert {row.verdict for row in made.report()} == {VerdictKind.COMPLETE}


async def test_doubt_about_a_day_is_kept(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(1))
    made = await office(nursery, desk, {DAY: listed(uids(desk), "the source gives no more than 100")})

    running = await made.migrate()

    assert running.migration.doubts == {DAY: "the source gives no more than 100"}
    with desk.ledger.read() as connection:
        assert planning.portions(connection, 1)[DAY].doubt == "the source gives no more than 100"


async def test_what_is_not_configured_is_refused_before_anything_begins(bench: Start, nursery: trio.Nursery) -> None:
    made = await office(nursery, bench(), {})
    for more, message in (
        ({"destinations": ("nowhere",)}, "no destination is called 'nowhere'"),
        ({"when": "night"}, "no schedule is called 'night'"),
        ({"delete_from_source": True}, "has no `rest`"),
    ):
        with pytest.raises(UsageError, match=message):
            await made.migrations.start(MigrationRequest("archive", DAY, DAY, **more), detached=False)
    with pytest.raises(UsageError, match="there is no migration 7"):
        await made.migrations.pause(7)
    assert made.report() == []


def starts_of(desk: Bench, name: str = "migration 1") -> starts.Unended:
    with desk.ledger.read() as connection:
        return starts.get(connection, name)


@pytest.mark.parametrize("fault", [KeyError("Doe^John"), RecursionError(), MemoryError(), OverflowError(), LookupError("bz2")])
async def test_a_fault_of_our_own_is_a_failed_job_and_nothing_else(bench: Start, nursery: trio.Nursery, fault: Exception) -> None:
    desk = bench(datasets=datasets(1))
    made = await office(nursery, desk, {DAY: fault, "2024-03-01": listed(uids(desk))})

    running = await made.migrate()

    assert isinstance(running.error, JobFailed)
    assert type(fault).__name__ in str(running.error) and "Doe" not in str(running.error)
    assert starts_of(desk) == starts.Unended(0, str(running.error))
    made.days[DAY] = listed(uids(desk))
    assert (await made.migrate()).error is None
    assert starts_of(desk) == starts.Unended()


async def test_what_came_to_no_end_twice_is_not_carried_on_by_itself(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(1))
    made = await office(nursery, desk, {DAY: listed(uids(desk))})
    made.why = "no room"
    with trio.fail_after(DEADLINE_S):
        running = await made.migrations.start(MigrationRequest("archive", DAY, DAY, destinations=("copy",)), detached=True)
        assert starts_of(desk).count == 1
        made.jobs.stop()
        await running.ended.wait()
    assert starts_of(desk).count == 0
    for before in range(2):
        assert desk.ledger.write(partial(starts.begin, name="migration 1", by_itself=True, now=1.0)) == before

    later = await office(nursery, desk, {DAY: listed(uids(desk))})
    with trio.fail_after(DEADLINE_S):
        await later.migrations.carry_on()
        assert later.migrations.running == {} and desk.pacs.orders == []
        resumed = await later.migrations.resume(1)
        await resumed.ended.wait()
    assert len(desk.pacs.orders) == 1 and starts_of(desk) == starts.Unended()


async def test_after_a_start_that_came_to_no_end_one_study_moves_at_a_time(bench: Start, nursery: trio.Nursery) -> None:
    desk = bench(datasets=datasets(2), source={"moves": 4})
    made = await office(nursery, desk, {DAY: listed(uids(desk))})
    made.why = "no room"
    with trio.fail_after(DEADLINE_S):
        running = await made.migrations.start(MigrationRequest("archive", DAY, DAY, destinations=("copy",)), detached=True)
        made.jobs.stop()
        await running.ended.wait()
    desk.ledger.write(partial(starts.begin, name="migration 1", by_itself=True, now=1.0))

    later = await office(nursery, desk, {DAY: listed(uids(desk))})
    with trio.fail_after(DEADLINE_S):
        await later.migrations.carry_on()
        (carried,) = later.migrations.running.values()
        assert carried.migration.pace.limit == 1
        await carried.ended.wait()
    assert starts_of(desk) == starts.Unended()
