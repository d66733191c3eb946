"""When a series has stopped growing, and when a study is tried or compared again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.sync.growth import AT_ONCE, TWO_LOOKS, Patience, Seen, observe
from gateway.jobs.sync.memory import Memory
from gateway.jobs.sync.pauses import LONGEST_PAUSE_S, UNCOUNTED_S, attempted, may_try, pause, until_compared
from gateway.jobs.sync.shortfall import Sight

HISTORIES = st.lists(st.tuples(st.integers(0, 3), st.floats(1, 300)), min_size=1, max_size=12)


def seen_through(history: list[tuple[int, float]]) -> tuple[Seen, float]:
    """Return the knowledge of a series after looks that saw these counts, each so long after the one before, and the time."""
    known, now = dict[str, Seen](), 0.0
    for count, after_s in history:
        now += after_s
        known = observe(known, {"1.2": count}, now)
    return known["1.2"], now


@given(HISTORIES)
def test_two_looks_are_the_last_two_that_saw_the_same(history: list[tuple[int, float]]) -> None:
    seen, now = seen_through(history)
    same = len(history) > 1 and history[-1][0] == history[-2][0]
    assert TWO_LOOKS.settled(seen, now) is same
    assert AT_ONCE.settled(seen, now)


@given(HISTORIES, st.floats(1, 600))
def test_quiet_is_the_time_since_the_count_was_first_seen(history: list[tuple[int, float]], quiet_s: float) -> None:
    seen, now = seen_through(history)
    unchanged_s = 0.0
    for (count, after_s), (before, _) in zip(history[::-1], history[-2::-1], strict=False):
        if count != before:
            break
        unchanged_s += after_s
    assert now - seen.since == pytest.approx(unchanged_s)
    assert Patience(quiet_s=quiet_s).settled(seen, now) is (now - seen.since >= quiet_s)


def test_a_series_that_is_gone_begins_anew() -> None:
    known = observe(observe({}, {"1.2": 3}, 0.0), {}, 60.0)
    assert not TWO_LOOKS.settled(known.get("1.2"), 60.0)
    assert not TWO_LOOKS.settled(observe(known, {"1.2": 3}, 120.0)["1.2"], 120.0)


def test_pauses_grow_from_the_interval_to_an_hour() -> None:
    assert [pause(tries, 60.0) for tries in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert pause(1000, 60.0) == LONGEST_PAUSE_S
    assert pause(3, 7200.0) == 7200.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.floats(0, 100)), max_size=12), st.integers(0, 2), st.floats(1, 120))
def test_a_study_is_never_given_up_and_never_hammered(
    tries: list[tuple[bool, int, float]], lacking: int, interval_s: float
) -> None:
    attempt, now = None, 0.0
    for complete, what, late_s in tries:
        if attempt is not None and not may_try(attempt, what, now, interval_s):
            now = attempt.ended_at + pause(attempt.tries, interval_s)
        assert may_try(attempt, what, now, interval_s)
        now += late_s
        attempt = attempted(attempt, what, now, complete=complete)
    if attempt is not None:
        helped = attempt.complete and attempt.lacking != lacking
        assert may_try(attempt, lacking, now, interval_s) is helped
        assert may_try(attempt, lacking, now + max(LONGEST_PAUSE_S, interval_s), interval_s)


def test_growth_after_a_complete_retrieval_is_fetched_at_once() -> None:
    attempt = attempted(None, {"a"}, 0.0, complete=True)
    assert may_try(attempt, {"b"}, 1.0, 60.0)
    assert attempted(attempt, {"b"}, 2.0, complete=True).tries == 1


def test_a_destination_that_takes_and_does_not_keep_is_given_pauses() -> None:
    attempt = attempted(attempted(None, {"a"}, 0.0, complete=True), {"a"}, 60.0, complete=True)
    assert attempt.tries == 2
    assert not may_try(attempt, {"a"}, 61.0, 60.0)


def test_what_both_sides_count_is_compared_by_uids_at_the_long_interval() -> None:
    assert [until_compared(times, 60.0, 21600.0, counted=True) for times in (1, 5)] == [21600.0, 21600.0]


def test_what_a_side_does_not_count_is_listed_later_and_later() -> None:
    waits = [until_compared(times, 60.0, 21600.0, counted=False) for times in range(1, 8)]
    assert waits == [60, 120, 240, 480, 960, UNCOUNTED_S, UNCOUNTED_S]
    assert until_compared(50, 60.0, 300.0, counted=False) == 300.0


def test_an_agreed_study_rests_until_a_count_changes_or_its_time_comes() -> None:
    sight = Sight(5, {"a": 5})
    memory = Memory().agree(sight, 0.0, 60.0, 21600.0)
    assert memory.is_settled(sight, 21599.0)
    assert not memory.is_settled(sight, 21600.0)
    assert not memory.is_settled(replace(sight, count=6), 1.0)
    assert not memory.is_settled(Sight(5, {"a": 4}), 1.0)


def test_a_study_that_agrees_by_counts_only_is_due_at_the_next_look() -> None:
    sight = Sight(5, {"a": 5})
    assert not Memory().agree_by_counts(sight, 10.0).is_settled(sight, 10.0)


def test_a_try_that_ended_has_the_study_compared_again() -> None:
    sight = Sight(5, {"a": 5})
    memory = Memory().agree(sight, 0.0, 60.0, 21600.0).tried("x", 1.0, complete=True)
    assert not memory.is_settled(sight, 2.0)
    assert memory.attempt is not None
    assert memory.agree(sight, 3.0, 60.0, 21600.0).attempt is None
