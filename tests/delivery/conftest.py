"""A state folder and destinations that do as scripted."""

from __future__ import annotations

import pytest

from tests.support import instances


@pytest.fixture
def store(tmp_path):
    with instances.store(tmp_path / "state") as opened:
        yield opened
