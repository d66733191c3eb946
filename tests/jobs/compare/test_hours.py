"""Outside its hours a comparison waits; what is under way at their end is broken off, and nothing else is done twice."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
import trio
import trio.testing

from gateway.archives.places import SeriesHeld
from gateway.core.schedule import Schedule, Span
from gateway.jobs import working_hours
from gateway.jobs.compare import CompareRequest, Comparison, Outcome
from gateway.jobs.compare.hours import Hours
from gateway.jobs.compare.repair import Fetch
from gateway.jobs.compare.runner import AT_A_TIME, fetch_all
from gateway.jobs.working_hours import Window
from gateway.retrieve import JobSpec, Wanted
from tests.jobs.sync.places import Shelf
from tests.support.waiting import PATIENCE_S, until

NIGHTS = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])


@dataclass
class Clock:
    """Night or day, as a test says; `by_day` is how often it was looked at by day."""

    night: bool = True
    by_day: int = 0
    waited: trio.Event = field(default_factory=trio.Event)
    waits: int = 0

    def __call__(self) -> datetime:
        self.by_day += not self.night
        return datetime(2026, 11, 25, 22 if self.night else 12, tzinfo=UTC)

    async def _waits(self) -> None:
        self.waits += 1
        self.waited.set()
        self.waited = trio.Event()

    def hours(self) -> Hours:
        return Hours(Window(NIGHTS, clock=self), self._waits)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(working_hours, "LOOK_EVERY_S", 0.01)
    return Clock()


@dataclass
class Watched(Shelf):
    """A shelf that does something whenever it is asked for a study's series."""

    seen: Callable[[str], None] = lambda _study: None

    def series(self, study: str) -> dict[str, SeriesHeld]:
        found = super().series(study)
        self.seen(study)
        return found


async def quietly(_outcome: Outcome) -> None:
    """Tell nobody."""


def comparison(a: Shelf, b: Shelf, hours: Hours, folder: Path) -> Comparison:
    return Comparison(CompareRequest("a", "b"), cast(Any, a), cast(Any, b), folder, cast(Any, None), quietly, hours)


def shelves(seen: Callable[[str], None] = lambda _study: None) -> tuple[Watched, Watched]:
    a, b = Watched("a", seen=seen), Watched("b")
    for number in range(1, 7):
        a.put(f"1.{number}", f"1.{number}.1", 1, 2)
        b.put(f"1.{number}", f"1.{number}.1", 1, *([] if number == 6 else [2]))
    return a, b


async def test_nothing_is_asked_before_the_hours_begin(clock: Clock, tmp_path: Path) -> None:
    a, b = shelves()
    clock.night = False
    waited = clock.waited
    outcomes: list[Outcome] = []

    async def look() -> None:
        outcomes.append(await comparison(a, b, clock.hours(), tmp_path).look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await waited.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (a.asked, b.asked, clock.waits) == ([], [], 1)
        clock.night = True

    assert [one.instance for one in outcomes[0].differences] == ["1.6.1.2"]


async def test_what_is_asked_when_they_end_is_asked_again_and_nothing_else_is(clock: Clock, tmp_path: Path) -> None:
    """The question about the first study is under way when they end, and is given up: its answer comes to nobody."""
    under_way: list[str] = []
    ended = threading.Event()

    def seen(study: str) -> None:
        if not under_way:
            under_way.append(study)
            clock.night = False
            assert ended.wait(PATIENCE_S), "the comparison waits for what was under way"

    a, b = shelves(seen)
    waited = clock.waited
    outcomes: list[Outcome] = []

    async def look() -> None:
        outcomes.append(await comparison(a, b, clock.hours(), tmp_path).look())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await waited.wait()
        assert outcomes == []
        await until(lambda: clock.by_day > 200, "everyone, many times, saw that it is day")
        clock.night = True
        await until(lambda: outcomes, "the end of the comparison")
        ended.set()

    again = [one for one in a.asked if a.asked.count(one) > 1]
    assert again.count(f"series {under_way[0]}") == 2
    assert (len(again) <= 2 * AT_A_TIME, clock.waits, a.asked.count("studies")) == (True, 1, 1)
    assert [one.instance for one in outcomes[0].differences] == ["1.6.1.2"]
    assert (outcomes[0].studies, outcomes[0].series, outcomes[0].instances) == (6, 6, 12)


@dataclass
class Retrieving:
    """A retriever, and its one session, that notes what is retrieved at the same time."""

    running: list[Wanted] = field(default_factory=list)
    together: list[tuple[str, ...]] = field(default_factory=list)
    job_id: int = 1

    @asynccontextmanager
    async def job(self, _source: str, _spec: JobSpec) -> AsyncIterator[Retrieving]:
        yield self

    async def retrieve(self, wanted: Wanted, **_how: object) -> str:
        self.running.append(wanted)
        self.together.append(tuple(one.study_instance_uid for one in self.running))
        await trio.testing.wait_all_tasks_blocked()
        self.running.remove(wanted)
        return wanted.study_instance_uid


async def test_parts_of_a_study_are_retrieved_in_turn_and_studies_in_parallel() -> None:
    """A part that was broken off resumes as the newest retrieval of its study: another part's must not be newer."""
    wanted = [Wanted(study, series=frozenset({part})) for study in ("1.1", "1.2") for part in ("1", "2")]
    retriever, spec = Retrieving(), JobSpec("compare", "fingerprint", "{}", ("copy",))
    _, verdicts = await fetch_all(cast(Any, retriever), "pacs", spec, list(map(Fetch, wanted)), Hours(), at_a_time=4)
    assert sorted(cast(Any, verdicts)) == ["1.1", "1.1", "1.2", "1.2"]
    assert ("1.1", "1.2") in retriever.together
    assert all(len(set(studies)) == len(studies) for studies in retriever.together)


async def test_work_is_done_once_where_there_are_no_hours() -> None:
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        return "done"

    assert (await Hours().within(work), len(calls)) == ("done", 1)


async def test_what_fails_within_them_fails_as_it_is(clock: Clock) -> None:
    async def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await clock.hours().within(fail)
