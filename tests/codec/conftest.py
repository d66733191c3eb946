from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.codec import contents
from gateway.codec.workers.pool import Pool

Differing = Callable[[Path, Path], tuple[str, ...]]


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two workers for all tests of a process."""
    with Pool(2) as workers:
        yield workers


@pytest.fixture(scope="session")
def differing(pool: Pool) -> Differing:
    """Tells what two files differ in."""
    return partial(contents.differing, pool=pool)
