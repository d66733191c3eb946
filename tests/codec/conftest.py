from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.codec.workers.pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Two workers for all tests of a process."""
    with Pool(2) as workers:
        yield workers
