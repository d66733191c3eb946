from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.codec import contents
from gateway.codec.workers.pool import Pool

Differing = Callable[[Path, Path], tuple[str, ...]]


@pytest.fixture(scope="session")
def differing() -> Iterator[Differing]:
    """Tells what two files differ in; one worker for all tests of a process."""
    with Pool(1) as pool:
        yield partial(contents.differing, pool=pool)
