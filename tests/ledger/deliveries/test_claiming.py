"""Claiming and recording in the ledger."""

import pytest
from sqlalchemy import event, text, update

from gateway.core.domain import DeliveryState as S
from gateway.core.domain import Priority, Proof
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import mending
from gateway.ledger.deliveries.claiming import SUPERSEDED, Change
from tests.support import instances as support

FAR = 10.0**12


@pytest.fixture
def store(tmp_path):
    with support.store(tmp_path) as opened:
        yield opened


def claiming(store, *, now=FAR, max_instances=64, max_bytes=1 << 30, shares=1):
    return store.ledger.write(
        lambda connection: table.claim(connection, "a", now=now, max_instances=max_instances, max_bytes=max_bytes, shares=shares)
    )


def claim(store, **limits):
    return claiming(store, **limits).consignments


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


def test_what_is_urgent_is_claimed_first_and_what_nobody_waits_for_last(store):
    uids = store.add_synthetic("a", count=4)
    for number, priority in ((2, Priority.LOW), (3, Priority.HIGH), (4, Priority.HIGH)):
        change = update(deliveries).where(deliveries.c.id == number).values(priority=int(priority))
        store.ledger.write(lambda connection, change=change: connection.execute(change))
    order = [item.identity.sop_instance_uid for limit in (1, 2, 9) for item in claim(store, max_instances=limit)]
    assert order == [uids[2], uids[3], uids[0], uids[1]]


def test_what_is_urgent_and_not_due_yet_holds_nothing_up(store):
    uids = store.add_synthetic("a", count=2)
    later = update(deliveries).where(deliveries.c.id == 1).values(priority=int(Priority.HIGH), due_at=FAR + 5)
    store.ledger.write(lambda connection: connection.execute(later))
    claimed = claiming(store)
    assert [item.identity.sop_instance_uid for item in claimed.consignments] == uids[1:]
    assert claimed.next_due == FAR + 5


def test_workers_share_what_is_due(store):
    store.add_synthetic("a", count=10)
    assert len(claim(store, shares=4)) == 3
    assert len(claim(store, shares=4)) == 2


def test_a_claim_says_when_the_next_one_falls_due(store):
    assert claiming(store).next_due is None
    store.add_synthetic("a", count=4)
    assert claiming(store, max_instances=2).next_due < FAR
    assert claiming(store, max_bytes=1).next_due == FAR
    assert claiming(store).next_due is None


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
    early = claiming(store)
    assert (early.consignments, early.next_due) == ([], FAR + 10)
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


def test_deliveries_interrupted_by_a_stop_are_pending_and_uncertain(store):
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


def test_newer_content_waits_while_older_content_of_its_uid_is_being_sent(store):
    older = _rivals(store)
    early = claiming(store)
    assert (early.consignments, early.next_due) == ([], FAR + table.RIVAL_PAUSE_S)
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


def test_missing_bytes_hold_every_destination_until_they_come_again(store):
    identity = support.synthetic(1)
    store.add(identity, b"content", "a", "b")
    (item,) = claim(store)
    apply(store, Change(item.delivery_id, S.HELD, 1, reason="bytes missing: gone", bytes_gone=True))
    assert store.states() == ["held", "held"]
    store.add(identity, b"content", "a", "b")
    assert store.states() == ["pending", "pending"]
    (again,) = claim(store)
    assert again.content.location != item.content.location


def _fill(connection, last, first=2):
    """Copy the one instance under other UIDs, with the ids from `first` to `last`, each with a delivery."""
    names = ", ".join(column.name for column in instances.columns if column.name not in {"id", "location", "sop_instance_uid"})
    numbers = f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
    connection.execute(
        text(
            f"{numbers} INSERT INTO instances (id, location, sop_instance_uid, {names}) "
            f"SELECT i, 'spool:' || i, '1.2.' || i, {names} FROM n, instances WHERE instances.id = 1"
        )
    )
    connection.execute(
        text(
            "INSERT INTO deliveries (instance_id, destination, state, due_at, changed_at) "
            f"SELECT id, 'a', 'pending', id, 0 FROM instances WHERE id >= {first}"
        )
    )


def _work(store, change):
    """Return how much SQLite did for `change`, in steps of its virtual machine, by hundreds."""

    def count(connection):
        driver, steps = connection.connection.driver_connection, []
        driver.set_progress_handler(lambda: steps.append(1), 100)
        try:
            change(connection)
        finally:
            driver.set_progress_handler(None, 0)
        return len(steps)

    return store.ledger.write(count)


def _claim_64(connection):
    claim = table.claim(connection, "a", now=FAR, max_instances=64, max_bytes=1 << 30, shares=4)
    assert len(claim.consignments) == 64


def _pull_forward(connection):
    assert mending.pull_forward(connection, "a", now=FAR, horizon_s=1.0) == 0


@pytest.mark.parametrize("change", [_claim_64, _pull_forward])
def test_claiming_does_no_more_where_more_wait_or_are_being_sent(store, change):
    store.add_synthetic("a")
    store.ledger.write(lambda connection: _fill(connection, 500))
    few = _work(store, change)
    store.ledger.write(lambda connection: _fill(connection, 20_000, first=501))
    sent = "UPDATE deliveries SET state = 'sending' WHERE instance_id > 5000"
    store.ledger.write(lambda connection: connection.execute(text(sent)))
    assert _work(store, change) <= few + 2


def test_successes_are_recorded_by_one_statement_and_claimed_by_three(store):
    store.add_synthetic("a", count=10)
    claimed = claim(store, max_instances=5)
    asked = []

    def note(_connection, _cursor, statement, *_more):
        asked.append(statement)

    def again(connection):
        event.listen(connection, "before_cursor_execute", note)
        changes = [Change(item.delivery_id, S.DELIVERED, 1, status=0, proof=Proof.STATUS) for item in claimed]
        assert table.apply(connection, changes, now=FAR) == 5
        assert len(table.claim(connection, "a", now=FAR, max_instances=5, max_bytes=1 << 30).consignments) == 5
        event.remove(connection, "before_cursor_execute", note)

    store.ledger.write(again)
    assert [statement.split()[0] for statement in asked] == ["UPDATE", "SELECT", "SELECT", "UPDATE"]


@pytest.mark.slow
def test_claiming_costs_the_same_among_a_million_as_among_a_thousand(store):
    store.add_synthetic("a")
    store.ledger.write(lambda connection: _fill(connection, 1_000))
    few = _work(store, _claim_64)
    store.ledger.write(lambda connection: _fill(connection, 1_000_000, first=1_001))
    assert _work(store, _claim_64) <= few + 2
