"""The number of studies that move at a time: never too few or too many, fewer after trouble, more while it goes well."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.migrate.pacing import FALLEN, MIN_EPOCH, SAME_TROUBLE_S, Pace

events = st.lists(st.one_of(st.none(), st.integers(0, 1000)), max_size=200)


def after(pace: Pace, studies: int, *, instances: int = 10, seconds_each: float = 1.0, start: float = 0.0) -> tuple[Pace, float]:
    now = start
    for _ in range(studies):
        now += seconds_each
        pace = pace.moved(instances, now)
    return pace, now


@given(st.integers(1, 16), events)
def test_the_limit_stays_between_one_and_the_most(most: int, trouble_or_instances: list[int | None]) -> None:
    pace = Pace(most, limit=min(2, most))
    for now, event in enumerate(trouble_or_instances, 1):
        pace = pace.troubled(now) if event is None else pace.moved(event, now)
        assert 1 <= pace.limit <= most


def test_it_grows_by_one_an_epoch_while_the_rate_holds() -> None:
    pace, now = Pace(8, limit=2), 0.0
    limits = [pace.limit]
    for _ in range(40):
        pace, now = after(pace, 1, start=now)
        if pace.limit != limits[-1]:
            limits.append(pace.limit)
    assert limits == [2, 3, 4, 5, 6, 7]


def test_trouble_halves_it_once_for_all_who_meet_it() -> None:
    pace = Pace(16, limit=12).troubled(1.0)
    assert pace.limit == 6
    assert pace.troubled(1.0 + SAME_TROUBLE_S / 2) == pace
    assert pace.troubled(1.0 + SAME_TROUBLE_S).limit == 3
    assert Pace(16, limit=1).troubled(5.0).limit == 1


def test_one_more_that_made_it_slower_is_taken_back() -> None:
    pace, now = after(Pace(8, limit=2), MIN_EPOCH)
    assert (pace.limit, pace.raised) == (3, True)

    slower, _ = after(pace, 6, seconds_each=1 / (FALLEN * 0.9), start=now)
    as_fast, _ = after(pace, 6, seconds_each=1 / (FALLEN * 1.1), start=now)

    assert (slower.limit, as_fast.limit) == (1, 4)


def test_a_slow_epoch_without_one_more_is_the_studies_own_and_no_trouble() -> None:
    pace, now = after(Pace(2, limit=2), MIN_EPOCH)
    assert (pace.limit, pace.raised) == (2, False)
    assert after(pace, MIN_EPOCH, seconds_each=100.0, start=now)[0].limit == 2
