"""A rate is kept over any stretch of time, by however many share it; what was not used is not saved up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.throttle import CATCH_UP_S, Bucket, Throttle, parse_rate


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("20 MB/s", 20e6),
        ("500 kB/s", 500e3),
        ("1.5 GB/s", 1.5e9),
        ("100 Mbit/s", 12.5e6),
        ("80 kbit/s", 10e3),
        ("1 Gbit/s", 125e6),
        ("20MB/s", 20e6),
    ],
)
def test_rates_are_read(text: str, bytes_per_s: float) -> None:
    assert parse_rate(text) == bytes_per_s


@given(
    rate=st.floats(10_000, 2e9),
    moves=st.lists(st.tuples(st.integers(1, 10_000_000), st.floats(0.0, 3.0)), min_size=1, max_size=50),
)
def test_no_stretch_of_time_moves_more_than_the_rate_and_the_catch_up(rate: float, moves: list[tuple[int, float]]) -> None:
    bucket, now, begun = Bucket(rate), 1000.0, list[tuple[float, int]]()
    for count, pause_s in moves:
        now += pause_s
        bucket, wait_s = bucket.take(count, now)
        now += wait_s
        begun.append((now, count))
    for first in range(len(begun)):
        moved = 0
        for at, count in begun[first:]:
            # Bytes begun at the end of the stretch are moved after it.
            assert moved <= rate * (at - begun[first][0] + CATCH_UP_S) + begun[first][1] * 1e-6 + 1
            moved += count


@given(rate=st.floats(10_000, 2e9), count=st.integers(1_000, 1_000_000), late_s=st.floats(0.0, 0.05))
def test_a_constant_load_gets_the_rate_however_late_its_thread_wakes(rate: float, count: int, late_s: float) -> None:
    bucket, now, moved = Bucket(rate), 50.0, 0
    rounds = 400
    for _ in range(rounds):
        bucket, wait_s = bucket.take(count, now)
        now += wait_s + (late_s if wait_s else 0.0)
        moved += count
    # Moving itself takes no time here, so what is slower than the rate would be our own doing.
    assert moved / rate <= now - 50.0 + count / rate + CATCH_UP_S + 1e-6
    assert now - 50.0 <= moved / rate + late_s + 1e-6


def test_what_was_not_used_is_not_saved_up() -> None:
    bucket, _ = Bucket(1_000_000.0).take(1, now=100.0)
    bucket, wait_s = bucket.take(int(1_000_000 * CATCH_UP_S), now=10_000.0)
    assert wait_s == 0.0
    _, wait_s = bucket.take(1_000_000, now=10_000.0)
    assert wait_s == pytest.approx(0.0)
    _, wait_s = bucket.take(1_000_000, now=10_000.0)[0].take(1, now=10_000.0)
    assert wait_s == pytest.approx(1.0)


def test_who_shares_a_throttle_waits_for_what_the_others_took() -> None:
    throttle = Throttle(100_000.0, clock=lambda: 7.0)
    waits = [throttle.take(100_000) for _ in range(4)]
    assert waits == [pytest.approx(max(0.0, number - CATCH_UP_S)) for number in range(4)]


def test_pieces_are_a_moment_long() -> None:
    assert Throttle(10_000.0).piece_bytes == 16_384
    assert Throttle(20e6).piece_bytes == 5_000_000


def test_without_a_rate_there_is_no_throttle() -> None:
    assert Throttle.of(None) is None
    assert Throttle.of("1 MB/s") is not None
