"""One line a minute, whatever comes."""

from gateway.core.repeats import Repeats


def test_the_first_is_told_at_once_and_the_others_are_counted() -> None:
    now = [100.0]
    repeats = Repeats(clock=lambda: now[0])
    assert [repeats.due("full") for _ in range(1000)] == [1, *[0] * 999]
    now[0] += 59.9
    assert repeats.due("full") == 0
    now[0] += 0.1
    assert repeats.due("full") == 1001, "every one since the last line, this one included"
    assert repeats.due("full") == 0


def test_kinds_are_told_apart_and_the_rest_is_told_once() -> None:
    repeats = Repeats(clock=lambda: 0.0)
    assert (repeats.due("a"), repeats.due("b"), repeats.due("a"), repeats.due("b")) == (1, 1, 0, 0)
    assert (repeats.rest(), repeats.rest()) == (2, 0)
    assert repeats.due("a") == 1, "it begins anew"
