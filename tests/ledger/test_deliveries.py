"""Claiming and recording in the ledger."""

import time

import pytest
from sqlalchemy import text

from gateway.domain import DeliveryState as S
from gateway.domain import Proof
from gateway.ledger import deliveries as table
from gateway.ledger.deliveries import SUPERSEDED, Change
from gateway.ledger.schema import instances
from tests.support import instances as support

FAR = 10.0**12


@pytest.fixture
def store(tmp_path):
    with support.store(tmp_path) as opened:
        yield opened


def claim(store, *, now=FAR, max_instances=64, max_bytes=1 << 30, shares=1):
    return store.ledger.write(
        lambda connection: table.claim(connection, "a", now=now, max_instances=max_instances, max_bytes=max_bytes, shares=shares)
    )


def apply(store, *changes, now=FAR):
    return store.ledger.write(lambda connection: table.apply(connection, changes, now=now))


def test_a_claim_takes_what_was_due_longest_and_marks_it_as_being_sent(store):
    uids = store.add_synthetic("a", "b", count=5)
    claimed = claim(store, max_instances=3)
    assert [item.identity.sop_instance_uid for item in claimed] == uids[:3]
    assert store.states(to="a") == ["sending"] * 3 + ["pending"] * 2
    assert store.states(to="b") == ["pending"] * 5


def test_nothing_is_claimed_twice_or_before_it_is_due(store):
    store.add_synthetic("a", count=2)
    assert claim(store, now=0.0) == []
    assert len(claim(store)) == 2
    assert claim(store) == []


def test_a_claim_is_bounded_by_bytes_but_takes_at_least_one(store):
    store.add_synthetic("a", count=3)
    assert len(claim(store, max_bytes=1)) == 1
    assert len(claim(store, max_bytes=150)) == 2


def test_workers_share_what_is_due(store):
    store.add_synthetic("a", count=10)
    assert len(claim(store, shares=4)) == 3
    assert len(claim(store, shares=4)) == 2


def test_a_consignment_carries_what_the_adapter_needs(store):
    store.add_synthetic("a")
    (item,) = claim(store)
    with store.spool.open(item.content) as source:
        assert source.length == item.content.length
    assert (item.destination, item.attempts, item.uncertain, item.last_status, item.has_rivals) == ("a", 0, False, None, False)


def test_deferred_deliveries_come_back_when_they_are_due(store):
    store.add_synthetic("a")
    (item,) = claim(store)
    apply(store, Change(item.delivery_id, S.DEFERRED, 1, due_at=FAR + 10, status=0xA700, reason="busy"))
    with store.ledger.read() as connection:
        assert table.next_due(connection, "a") == FAR + 10
        assert table.next_due(connection, "b") is None
    assert claim(store) == []
    (again,) = claim(store, now=FAR + 10)
    assert (again.attempts, again.last_status) == (1, 0xA700)


def test_a_delivered_instance_with_a_proof_is_verified_at_once(store):
    store.add_synthetic("a", count=2)
    one, other = claim(store)
    apply(
        store,
        Change(one.delivery_id, S.DELIVERED, 1, status=0, proof=Proof.STATUS),
        Change(other.delivery_id, S.DELIVERED, 1, status=0xB000, reason="warning"),
    )
    first, second = store.rows()
    assert (first.state, first.proof) == ("verified", "status")
    assert (second.state, second.proof, second.reason, second.status) == ("delivered", None, "warning", 0xB000)


def test_what_was_being_sent_when_the_gateway_ended_is_pending_and_uncertain(store):
    store.add_synthetic("a", count=2)
    claim(store, max_instances=1)
    assert store.ledger.write(lambda connection: table.recover_sending(connection, now=FAR)) == 1
    assert [(row.state, bool(row.uncertain)) for row in store.rows()] == [("pending", True), ("pending", False)]
    assert [item.uncertain for item in claim(store)] == [True, False]


def test_an_outcome_that_comes_after_recovery_changes_nothing(store):
    store.add_synthetic("a")
    (item,) = claim(store)
    store.ledger.write(lambda connection: table.recover_sending(connection, now=FAR))
    assert apply(store, Change(item.delivery_id, S.DELIVERED, 1, status=0)) == 0
    assert store.states() == ["pending"]


def _rivals(store):
    """The same SOP Instance UID with other content, the older one being sent."""
    identity = support.synthetic(1)
    store.add(identity, b"older content", "a")
    (older,) = claim(store)
    store.add(identity, b"newer content", "a")
    return older


def test_newer_content_waits_while_older_content_of_the_same_uid_is_being_sent(store):
    older = _rivals(store)
    assert claim(store) == []
    apply(store, Change(older.delivery_id, S.DELIVERED, 1, status=0))
    (newer,) = claim(store, now=FAR + table.RIVAL_PAUSE_S)
    assert newer.has_rivals


def test_superseded_content_is_held_when_its_turn_comes(store):
    older = _rivals(store)
    apply(store, Change(older.delivery_id, S.PENDING, 0))
    (newer,) = claim(store, now=FAR + table.RIVAL_PAUSE_S)
    assert newer.delivery_id != older.delivery_id
    held = store.rows()[0]
    assert (held.state, held.reason) == ("held", SUPERSEDED)


def test_bytes_that_an_attempt_misses_are_missing_for_every_destination_until_they_come_again(store):
    identity = support.synthetic(1)
    store.add(identity, b"content", "a", "b")
    (item,) = claim(store)
    apply(store, Change(item.delivery_id, S.HELD, 1, reason="bytes missing: gone", bytes_gone=True))
    assert store.states() == ["held", "held"]
    store.add(identity, b"content", "a", "b")
    assert store.states() == ["pending", "pending"]
    (again,) = claim(store)
    assert again.content.location != item.content.location


def test_claiming_reads_the_due_index_whatever_the_queue_holds(store):
    statement = (
        "SELECT deliveries.id FROM deliveries WHERE deliveries.destination = :d AND deliveries.state IN ('pending', 'deferred') "
        "AND deliveries.due_at <= :n ORDER BY deliveries.due_at, deliveries.id LIMIT 64"
    )
    with store.ledger.read() as connection:
        plan = [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"), {"d": "a", "n": 1.0})]
    assert any("deliveries_due" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


def _fill(connection, count):
    """Copy the one instance `count` times under other UIDs, each with a delivery."""
    names = ", ".join(column.name for column in instances.columns if column.name not in {"id", "location", "sop_instance_uid"})
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    connection.execute(
        text(
            f"{numbers} INSERT INTO instances (id, location, sop_instance_uid, {names}) "
            f"SELECT i, 'spool:' || i, '1.2.' || i, {names} FROM n, instances WHERE instances.id = 1"
        )
    )
    connection.execute(
        text(
            "INSERT INTO deliveries (instance_id, destination, state, due_at, changed_at) "
            "SELECT id, 'a', 'pending', id, 0 FROM instances WHERE id > 1"
        )
    )


@pytest.mark.slow
def test_claiming_among_a_million_pending_deliveries_costs_milliseconds(store):
    store.add_synthetic("a")
    store.ledger.write(lambda connection: _fill(connection, 1_000_000))
    took = []
    for _ in range(20):
        began = time.perf_counter()
        assert len(claim(store)) == 64
        took.append(time.perf_counter() - began)
    assert sorted(took)[10] < 0.1, took
