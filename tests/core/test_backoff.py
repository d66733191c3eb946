"""The doubling pause before another try."""

from __future__ import annotations

import pytest

from gateway.core.backoff import doubling_s


@pytest.mark.parametrize(("failures", "pause_s"), [(1, 5.0), (2, 10.0), (3, 20.0), (7, 320.0), (8, 600.0), (1_000_000, 600.0)])
def test_the_pause_doubles_up_to_the_longest(failures: int, pause_s: float) -> None:
    assert doubling_s(5.0, 600.0, failures) == pause_s
