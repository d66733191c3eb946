from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ledger import Ledger
from gateway.spool import Spool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    with Spool(folder, reserve_bytes=0) as opened:
        yield opened


@pytest.fixture
def ledger(folder: Path, spool: Spool) -> Iterator[Ledger]:
    with Ledger(folder.parent / "ledger.sqlite") as opened:
        yield opened
