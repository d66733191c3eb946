"""Cycle after cycle: what is moved, what is skipped, and how it ends. The retriever is scripted; ledger and looks are real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import trio
import trio.testing

from gateway.core.domain import Basis, VerdictKind
from gateway.core.errors import LedgerUnavailable, PeerUnreachable
from gateway.core.schedule import Schedule, Span
from gateway.jobs.sync.cycle import Cycle
from gateway.jobs.sync.growth import AT_ONCE
from gateway.jobs.sync.runner import Sync
from gateway.jobs.working_hours import Window
from gateway.retrieve import Event, JobSpec, StudyEnded, Verdict, Wanted
from tests.jobs.sync.conftest import Desk

MakeDesk = Callable[..., Desk]
Clock = trio.testing.MockClock
COMPLETE, FAILED = VerdictKind.COMPLETE, VerdictKind.FAILED
INTERVAL_S = 60.0


@dataclass
class Scripted:
    """A retriever that does `script` with each study, and by it says how its retrieval ended."""

    script: Callable[[Wanted], Awaitable[VerdictKind]]
    specs: list[JobSpec] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    refuses: Exception | None = None
    job_id: int = 0

    @asynccontextmanager
    async def job(self, _source: str, spec: JobSpec) -> AsyncIterator[Any]:
        if self.refuses is not None:
            raise self.refuses
        assert spec.fingerprint not in {one.fingerprint for one in self.specs}
        self.specs.append(spec)
        self.job_id += 1
        yield self

    async def retrieve(self, wanted: Wanted, *, fresh: bool, tell: object) -> Verdict:
        assert fresh
        self.begun.append(wanted.study_instance_uid)
        kind = await self.script(wanted)
        return Verdict(kind, wanted.study_instance_uid, Basis.UIDS, 2, 2 if kind is COMPLETE else 0, bytes=1000)


@dataclass
class Run:
    """A sync at work on a desk, and what it told."""

    desk: Desk
    retriever: Scripted
    clock: Clock
    moves: int = 1
    hours: Window = field(default_factory=lambda: Window(None))
    cycles: list[Cycle] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self.desk.context, "retriever", cast(Any, self.retriever))
        self.sync = Sync(self.desk.plan, self.desk.context, self.hours, self.moves, self.tell)

    async def tell(self, event: Cycle | Event) -> None:
        if isinstance(event, Cycle):
            self.cycles.append(event)
        elif isinstance(event, StudyEnded):
            self.verdicts.append(event.verdict)

    async def cycle(self, after_s: float = INTERVAL_S) -> Cycle:
        """Let so much time pass, and wait for the cycle that comes then."""
        number = len(self.cycles)
        if number:
            self.clock.jump(after_s)
        await cycles_come(self, number + 1)
        return self.cycles[-1]


async def cycles_come(run: Run, count: int) -> None:
    """Wait for the next cycle."""
    await comes_about(lambda: len(run.cycles) >= count, f"{count} cycles")


async def comes_about(condition: Callable[[], object], what: str) -> None:
    """Wait until it is so and nothing goes on any more, in real time: the clock stands still."""
    for _ in range(5000):
        if condition():
            await trio.testing.wait_all_tasks_blocked()
            return
        await trio.to_thread.run_sync(lambda: None)
    raise AssertionError(f"never: {what}")


@asynccontextmanager
async def running(desk: Desk, clock: Clock, script: Callable[[Wanted], Awaitable[VerdictKind]], **how: Any) -> AsyncIterator[Run]:
    run = Run(desk, Scripted(script), clock, **how)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.sync.run)
        yield run
        nursery.cancel_scope.cancel()


def delivering(desk: Desk) -> Callable[[Wanted], Awaitable[VerdictKind]]:
    """A script that brings what is wanted to the destination at once."""

    async def deliver(wanted: Wanted) -> VerdictKind:
        for series, uids in desk.source.held[wanted.study_instance_uid].items():
            if wanted.series is None or series in wanted.series:
                held = desk.destination.held.setdefault(wanted.study_instance_uid, {}).setdefault(series, set())
                held.update(uids if wanted.instances is None else uids & wanted.instances)
        return COMPLETE

    return deliver


async def in_vain(_wanted: Wanted) -> VerdictKind:
    return FAILED


def with_studies(desk: Desk, *studies: str) -> Desk:
    for study in studies:
        desk.source.put(study, f"{study}.1", 1, 2)
        desk.source.dates[study] = f"2024030{study}"
    return desk


async def test_what_is_missing_is_moved_and_counted(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(), "1", "2")
    async with running(here, mock_clock, delivering(here)) as run:
        assert (await run.cycle()).growing == 2
        started = await run.cycle()
        assert (started.found, started.missing, started.started) == (2, 2, 2)
        moved = await run.cycle()
        assert (moved.moved, moved.series, moved.instances, moved.bytes, moved.missing) == (2, 2, 4, 2000, 0)
        assert moved.instances_a_minute == 4.0
        assert (await run.cycle()).moved == 0
    assert [one.destinations for one in run.retriever.specs] == [("a",)]


async def test_a_look_waits_for_no_retrieval_and_skips_what_is_under_way(desk: MakeDesk, mock_clock: Clock) -> None:
    here, go_on = with_studies(desk(patience=AT_ONCE), "1"), trio.Event()

    async def held_up(wanted: Wanted) -> VerdictKind:
        if wanted.study_instance_uid == "1":
            await go_on.wait()
        return await delivering(here)(wanted)

    async with running(here, mock_clock, held_up) as run:
        assert (await run.cycle()).started == 1
        with_studies(here, "2")
        second = await run.cycle()
        assert (second.underway, second.started) == (1, 1)
        assert (await run.cycle()).moved == 1
        go_on.set()
        await comes_about(lambda: not here.context.busy, "nothing under way")
        assert (await run.cycle()).moved == 1
    assert run.retriever.begun == ["1", "2"]


async def test_newest_studies_start_first_up_to_one_more_than_the_moves(desk: MakeDesk, mock_clock: Clock) -> None:
    here, go_on = with_studies(desk(patience=AT_ONCE), "1", "2", "3", "4", "5"), trio.Event()

    async def held_up(_wanted: Wanted) -> VerdictKind:
        await go_on.wait()
        return COMPLETE

    async with running(here, mock_clock, held_up, moves=2) as run:
        await run.cycle()
        assert run.retriever.begun == ["5", "4", "3"]
        go_on.set()
        await comes_about(lambda: not here.context.busy, "nothing under way")
    assert run.retriever.begun == ["5", "4", "3", "2", "1"]


async def test_a_study_that_fails_is_tried_again_after_pauses_that_grow(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1")
    tries = []
    async with running(here, mock_clock, in_vain) as run:
        for _ in range(9):
            cycle = await run.cycle()
            tries.append(cycle.started)
            assert cycle.missing == 1
            assert cycle.paused == 1 - cycle.started
        assert tries == [1, 1, 0, 1, 0, 0, 0, 1, 0]
        assert sum(one.unfinished for one in run.cycles) == 4
        run.retriever.script = delivering(here)
        await run.cycle(3600.0)
        assert (await run.cycle()).missing == 0


async def test_a_study_the_destination_does_not_keep_is_moved_ever_more_rarely(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1")

    async def lost(_wanted: Wanted) -> VerdictKind:
        return COMPLETE

    async with running(here, mock_clock, lost) as run:
        assert [(await run.cycle()).started for _ in range(9)] == [1, 1, 0, 1, 0, 0, 0, 1, 0]


async def test_growth_is_fetched_as_a_difference(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(), "1")
    async with running(here, mock_clock, delivering(here)) as run:
        await run.cycle()
        await run.cycle()
        wanted = list[Wanted]()

        async def noted(one: Wanted) -> VerdictKind:
            wanted.append(one)
            return await delivering(here)(one)

        run.retriever.script = noted
        here.source.put("1", "1.1", 3, 4)
        assert (await run.cycle()).growing == 1
        assert (await run.cycle()).started == 1
    assert wanted == [Wanted("1", series=frozenset({"1.1"}), instances=frozenset({"1.1.3", "1.1.4"}))]


async def test_cancelling_leaves_nothing_taken(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1", "2", "3")

    async def for_ever(_wanted: Wanted) -> VerdictKind:
        await trio.sleep_forever()
        return COMPLETE

    async with running(here, mock_clock, for_ever) as run:
        await run.cycle()
        assert len(here.context.busy) == 3
    assert here.context.busy == set()


async def test_an_error_that_ends_a_job_costs_its_studies_a_try_and_no_more(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1", "2")
    async with running(here, mock_clock, delivering(here)) as run:
        run.retriever.refuses = LedgerUnavailable("the disk is full")
        await run.cycle()
        assert (await run.cycle()).unfinished == 2
        assert here.context.busy == set()
        run.retriever.refuses = None
        await run.cycle(3600.0)
        assert (await run.cycle()).moved == 2


async def test_an_error_that_nobody_expected_ends_its_study_and_not_the_sync(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1", "2")

    async def broken(wanted: Wanted) -> VerdictKind:
        if wanted.study_instance_uid == "2":
            raise RuntimeError("of a patient")
        return await delivering(here)(wanted)

    async with running(here, mock_clock, broken) as run:
        await run.cycle()
        assert (await run.cycle()).moved == 1
    assert {one.note for one in run.verdicts} == {"", "internal error: RuntimeError"}


async def test_a_source_that_is_down_costs_a_cycle_and_the_next_one_comes(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1")
    here.source.down = PeerUnreachable("connection refused", peer="ARCHIVE@127.0.0.1:1")
    async with running(here, mock_clock, delivering(here)) as run:
        cycle = await run.cycle()
        assert (cycle.found, "connection refused" in cycle.error) == (0, True)
        here.source.down = None
        assert (await run.cycle()).started == 1
        assert run.sync.last is run.cycles[-1]


async def test_two_syncs_do_not_retrieve_the_same_study(desk: MakeDesk, mock_clock: Clock) -> None:
    here, go_on = with_studies(desk(patience=AT_ONCE), "1"), trio.Event()

    async def held_up(_wanted: Wanted) -> VerdictKind:
        await go_on.wait()
        return COMPLETE

    async with running(here, mock_clock, held_up) as run:
        await run.cycle()
        other = Sync(here.plan, here.context, Window(None), 1, run.tell)
        await other.once([])
        assert (run.cycles[-1].underway, run.cycles[-1].started) == (1, 0)
        assert run.retriever.begun == ["1"]


async def test_outside_its_hours_nothing_is_looked_at_and_what_runs_is_stopped(desk: MakeDesk, mock_clock: Clock) -> None:
    here, stopped = with_studies(desk(patience=AT_ONCE), "1"), list[str]()

    async def for_ever(wanted: Wanted) -> VerdictKind:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(wanted.study_instance_uid)
        return COMPLETE

    nights = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])
    began = datetime(2026, 11, 25, 18, 59, tzinfo=UTC)
    hours = Window(nights, clock=lambda: began + timedelta(seconds=trio.current_time()))
    async with running(here, mock_clock, for_ever, hours=hours) as run:
        await trio.testing.wait_all_tasks_blocked()
        assert run.cycles == []
        mock_clock.jump(60.0)
        await cycles_come(run, 1)
        assert (run.retriever.begun, stopped) == (["1"], [])

        mock_clock.jump(11 * 3600.0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert stopped == ["1"]
        before = len(run.cycles)
        mock_clock.jump(6 * 3600.0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(run.cycles) == before

        mock_clock.jump(7 * 3600.0)
        await cycles_come(run, before + 1)
    assert len(run.retriever.begun) == 2


async def test_once_takes_one_look_and_ends_when_what_was_missing_is_moved(desk: MakeDesk, mock_clock: Clock) -> None:
    here = with_studies(desk(patience=AT_ONCE), "1", "2")
    run = Run(here, Scripted(delivering(here)), mock_clock)
    jobs = list[int]()
    await run.sync.once(jobs)
    assert (jobs, run.cycles[-1].started, run.cycles[-1].moved) == ([1], 2, 2)
    assert [one.kind for one in run.verdicts] == [COMPLETE, COMPLETE]
