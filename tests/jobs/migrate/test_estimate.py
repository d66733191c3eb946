"""The estimate of a migration's time left."""

from __future__ import annotations

import pytest

from gateway.jobs.migrate.estimate import MIN_INSTANCES, Progress, seconds_left


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        pytest.param(Progress(1, 1, 1000, 500, 500, 50.0), 50.0, id="half of it took as long as the rest will"),
        pytest.param(Progress(1, 1, 1000, 1000, 500, 50.0), 0.0, id="all of it moved"),
        pytest.param(Progress(1, 1, 1000, 1200, 500, 50.0), 0.0, id="more came than was listed"),
        pytest.param(Progress(10, 5, 1000, 500, 500, 50.0), 150.0, id="days not listed yet are like those that are"),
        pytest.param(Progress(1, 1, 1000, 900, 100, 10.0), 10.0, id="only this run's rate counts"),
        pytest.param(Progress(1, 1, 1000, 0, MIN_INSTANCES - 1, 50.0), None, id="too little to tell"),
        pytest.param(Progress(10, 0, 0, 0, 500, 50.0), None, id="nothing listed"),
    ],
)
def test_the_estimate(progress: Progress, expected: float | None) -> None:
    assert seconds_left(progress) == expected
