"""The ledger follows the answers: what was answered 0000 while it could not be written is neither lost nor forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.crashing import Fault, failing
from tests.support.gateway import Gateway, deliveries, folder_destination, settled
from tests.support.load import Ledger, Template, in_folder, lost

pytestmark = pytest.mark.slow


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def gateway(tmp_path: Path, archive: Path) -> Gateway:
    return Gateway(tmp_path / "gateway", {"destinations": {"archive": folder_destination(archive)}})


@pytest.fixture
def sent(tmp_path: Path) -> Ledger:
    return Ledger(Template(tmp_path / "template"))


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """Keep the gateway from writing its ledger."""
    with closing(sqlite3.connect(gateway.ledger, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_answered_instances_survive_a_kill_before_the_ledger_has_them(gateway: Gateway, sent: Ledger, archive: Path) -> None:
    with gateway.serving() as process, locked(gateway):
        assert sent.load(gateway.port, associations=2, each=10)
        assert deliveries(gateway) == []
        process.kill()
    assert len(sent.acknowledged) == 20
    with gateway.serving():
        settled(gateway, 20, "verified")
    assert lost(in_folder(archive), sent) == set()


def test_a_stop_records_what_was_answered(gateway: Gateway, sent: Ledger) -> None:
    with gateway.serving():
        assert sent.load(gateway.port, associations=2, each=50)
    assert {row.uid for row in deliveries(gateway)} == sent.acknowledged
    assert len(sent.acknowledged) == 100


@pytest.mark.peers("strace")
def test_a_ledger_that_cannot_be_written_is_outlived(gateway: Gateway, sent: Ledger, archive: Path) -> None:
    with gateway.serving() as process:
        assert sent.load(gateway.port, associations=1, each=1)
        settled(gateway, 1, "verified")
        # Where the spool syncs by the same call, it refuses; what it takes must be kept.
        with failing(process.pid, Fault("commit of the ledger", ("fdatasync",), 1, "EIO", onwards=True)):
            assert sent.load(gateway.port, associations=2, each=3)
        assert sent.load(gateway.port, associations=2, each=3)
        settled(gateway, len(sent.acknowledged), "verified")
    assert lost(in_folder(archive), sent) == set()
    assert len(sent.acknowledged) >= 7
