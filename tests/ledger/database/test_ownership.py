"""A node owns what it works on: starts reset its own, and late outcomes of an earlier epoch change nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select

from gateway.core.domain import DEFAULT_NODE, Consignment, Content, DeliveryState, InstanceIdentity, Provenance
from gateway.core.errors import UsageError
from gateway.core.urls import sqlite_file, sqlite_url
from gateway.ledger import Ledger
from gateway.ledger.database.ownership import LEASE_S
from gateway.ledger.database.schema import deliveries, instances, jobs, nodes, starts
from gateway.ledger.deliveries import claiming
from gateway.ledger.deliveries.claiming import Change
from gateway.ledger.jobs import retrievals
from gateway.ledger.jobs import starts as duties
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.keeping import at_this_node
from gateway.ledger.received.recording import record

NOW = 1000.0
PROVENANCE = Provenance("ARCHIVE", "GATEWAY", "127.0.0.1", "a1", "archive")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def arrive(ledger: Ledger, uid: str) -> int:
    identity = InstanceIdentity("1.2.840.1", uid, "1.2.840.10008.1.2.1", "1.2", "1.2.1")
    arrival = Arrival(identity, PROVENANCE, Content(f"spool:{uid}", 0, 7, "d"), ("a",), at=1.0)
    return ledger.write(partial(record, arrival=arrival)).instance_id


def claim(ledger: Ledger, now: float = NOW) -> list[Consignment]:
    claimed = ledger.write(partial(claiming.claim, destination="a", now=now, max_instances=1, max_bytes=99))
    return list(claimed.consignments)


def rows(ledger: Ledger, table: Table, *names: str) -> list[tuple[Any, ...]]:
    with ledger.read() as connection:
        return [tuple(row) for row in connection.execute(select(*(table.c[name] for name in names)))]


def job(ledger: Ledger, fingerprint: str) -> int:
    return ledger.write(partial(retrievals.open_job, kind="pull", fingerprint=fingerprint, criteria="{}", now=NOW)).id


def test_what_is_claimed_says_by_whom_in_which_epoch_and_until_when(path: Path) -> None:
    with Ledger(path, node="b") as ledger:
        ledger.enter()
        ledger.enter()
        arrive(ledger, "1")
        claim(ledger)
        job(ledger, "f")
        ledger.write(partial(duties.begin, name="sync day", by_itself=True, now=NOW))
        held = [("b", 2, NOW + LEASE_S)]
        for table in (deliveries, jobs, starts):
            assert rows(ledger, table, "node", "epoch", "lease_until") == held
        assert rows(ledger, instances, "node") == [("b",)]
        assert rows(ledger, nodes, "name", "epoch") == [("b", 2)]


def test_without_a_name_the_only_node_has_the_default_one(path: Path) -> None:
    with Ledger(path) as ledger:
        arrive(ledger, "1")
        claim(ledger)
        assert rows(ledger, deliveries, "node", "epoch") == [(DEFAULT_NODE, 0)]


def test_a_start_resets_the_deliveries_of_its_own_node_only(path: Path) -> None:
    with Ledger(path, node="b") as other:
        arrive(other, "1")
        arrive(other, "2")
        claim(other)
    with Ledger(path, node="a") as ledger:
        claim(ledger)
        assert ledger.write(partial(claiming.recover_sending, now=NOW + 1)) == 1
        assert rows(ledger, deliveries, "node", "state") == [("b", "sending"), ("a", "pending")]
        assert ledger.write(partial(claiming.recover_sending, now=NOW + LEASE_S + 1)) == 1
        assert rows(ledger, deliveries, "node", "state", "uncertain") == [("b", "pending", True), ("a", "pending", True)]


def test_a_start_stops_the_jobs_of_its_own_node_only(path: Path) -> None:
    with Ledger(path, node="b") as other:
        job(other, "theirs")
    with Ledger(path, node="a") as ledger:
        job(ledger, "ours")
        assert ledger.write(partial(retrievals.stop_running_jobs, now=NOW + 1)) == 1
        assert rows(ledger, jobs, "node", "state") == [("b", "running"), ("a", "stopped")]


def test_what_nobody_owns_is_reset_by_whoever_starts(path: Path) -> None:
    with Ledger(path, node="a") as ledger:
        arrive(ledger, "1")
        claim(ledger)
        ledger.write(lambda connection: connection.execute(deliveries.update().values(node=None, lease_until=None)))
        assert ledger.write(partial(claiming.recover_sending, now=NOW)) == 1


def test_what_another_node_lost_is_taken_over_and_ones_own_never(path: Path) -> None:
    with Ledger(path, node="b") as other:
        arrive(other, "1")
        arrive(other, "2")
        claim(other)
    late = NOW + LEASE_S + 1
    with Ledger(path, node="a") as ledger:
        claim(ledger)
        assert ledger.write(partial(claiming.take_over, destination="a", now=NOW + 1)) == 0
        assert ledger.write(partial(claiming.take_over, destination="b", now=late)) == 0
        assert ledger.write(partial(claiming.take_over, destination="a", now=late)) == 1
        assert rows(ledger, deliveries, "node", "state") == [("b", "pending"), ("a", "sending")]


def test_an_outcome_of_an_earlier_epoch_changes_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        arrive(ledger, "1")
        ledger.enter()
        (old,) = claim(ledger)
        delivered = [Change(old.delivery_id, DeliveryState.DELIVERED, 1, status=0)]
        ledger.enter()
        ledger.write(partial(claiming.recover_sending, now=NOW))
        claim(ledger, now=NOW + 1)
        ledger.owner.epoch -= 1
        assert ledger.write(partial(claiming.apply, changes=delivered, now=NOW + 2)) == 0
        ledger.owner.epoch += 1
        assert ledger.write(partial(claiming.apply, changes=delivered, now=NOW + 2)) == 1


def test_an_outcome_of_another_node_changes_nothing(path: Path) -> None:
    with Ledger(path, node="b") as other:
        arrive(other, "1")
        (theirs,) = claim(other)
    with Ledger(path, node="a") as ledger:
        delivered = [Change(theirs.delivery_id, DeliveryState.DELIVERED, 1, status=0)]
        assert ledger.write(partial(claiming.apply, changes=delivered, now=NOW)) == 0


def test_bytes_are_missing_only_where_this_node_is_to_have_them(path: Path) -> None:
    with Ledger(path, node="b") as other:
        theirs = arrive(other, "1")
    with Ledger(path, node="a") as ledger:
        mine = arrive(ledger, "2")
        with ledger.read() as connection:
            assert at_this_node(connection, [theirs, mine]) == [mine]


def test_a_ledger_is_opened_by_url(path: Path) -> None:
    with Ledger(sqlite_url(path)) as ledger:
        arrive(ledger, "1")
    with Ledger(path) as again:
        assert len(rows(again, instances, "id")) == 1


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "a b.db", "a%20b.db"])
def test_every_character_of_a_file_name_is_its_own(tmp_path: Path, name: str) -> None:
    with Ledger(sqlite_url(tmp_path / name)) as ledger:
        arrive(ledger, "1")
    assert (tmp_path / name).stat().st_size
    assert sqlite_file(sqlite_url(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:secret@host/db",
        "mysql://user:secret@host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///folder/",
        "sqlite://secret@host/x",
        "secret.db",
        "",
    ],
)
def test_other_urls_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(UsageError, match="SQLite is the only database") as raised:
        Ledger(url)
    assert "secret" not in str(raised.value)
