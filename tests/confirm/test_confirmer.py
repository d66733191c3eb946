"""Proofs over a real ledger, asked of an archive made of stock pynetdicom."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
import trio
from sqlalchemy import update

from gateway.association.dimse.commitment import CommitmentReport, FailedReference, InstanceReference
from gateway.config.settings import Settings
from gateway.confirm import Confirmer
from gateway.confirm.watch import NO_COMMITMENT, NO_FIND
from gateway.core.domain import DeliveryState as S
from gateway.core.domain import InstanceIdentity, VerdictKind
from gateway.ledger.database import transitions
from gateway.ledger.database.schema import arrivals, deliveries
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import commitments
from gateway.ledger.deliveries.proofs import RIVALS
from gateway.ledger.jobs import retrievals
from gateway.ledger.peers import learned
from gateway.ledger.received.instances import add_deliveries
from tests.support import instances
from tests.support.archive import Archive
from tests.support.ports import HOST, free_port
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import until


@pytest.fixture
def store(tmp_path):
    with instances.store(tmp_path / "state") as opened:
        yield opened


def settings(port, **values):
    destination = {
        "kind": "dicom",
        "ae_title": "ARCHIVE",
        "host": HOST,
        "port": port,
        "quiet_s": 0.05,
        "response_timeout_s": 10,
    } | values
    return Settings.model_validate({"destinations": {"pacs": destination}})


def delivered(store, count=3, *, lost=0, reason=None, study=1, identity=None):
    """Record instances that the destination answered success for; returns their identities."""
    if identity is None:
        uids = store.add_synthetic("pacs", count=count, study=study)
    else:
        store.add(identity, b"data", "pacs")
        uids = [identity.sop_instance_uid]
    now = time.time()

    def send(connection):
        claimed = table.claim(connection, "pacs", now=now, max_instances=1000, max_bytes=1 << 30).consignments
        transitions.move(connection, [item.delivery_id for item in claimed], S.DELIVERED, now=now, lost=lost, reason=reason)
        return [item.identity for item in claimed if item.identity.sop_instance_uid in uids]

    return store.ledger.write(send)


def holding(identities, **values):
    archive = Archive(**values)
    for identity in identities:
        archive.knows(identity)
        archive.held[identity.sop_instance_uid] = b""
    return archive


@asynccontextmanager
async def running(store, configuration, changed=lambda _name: None):
    confirmer = Confirmer(store.ledger, configuration, changed=changed)
    async with trio.open_nursery() as nursery:
        await nursery.start(confirmer.run)
        yield confirmer
        nursery.cancel_scope.cancel()


def known(store, fact):
    with store.ledger.read() as connection:
        return learned.get(connection, learned.destination_subject("pacs"), fact, now=time.time())


def proofs(store):
    return [(row.state, row.proof) for row in store.rows()]


async def test_what_the_destination_lists_is_verified(store):
    archive = holding(delivered(store))
    changes = []
    with archive.running():
        async with running(store, settings(archive.port), changes.append):
            await until(lambda: proofs(store) == [("verified", "exists")] * 3, "verified")
    assert changes == ["pacs"]
    assert [row.reason for row in store.rows()] == [None] * 3


async def test_a_warning_stays_beside_the_proof(store):
    archive = holding(delivered(store, 1, reason="warning B000 coercion of data elements"))
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "exists")], "verified")
    assert store.rows()[0].reason == "warning B000 coercion of data elements"


async def test_a_listed_uid_with_rival_content_proves_no_more_than_the_status(store):
    """An archive that answers success and keeps the old content lists the same UID."""
    (identity,) = delivered(store, 1)
    store.add(identity, b"other content", "pacs")
    delivered(store, 1, study=2)
    archive = holding([identity, instances.synthetic(2, study=2)])
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: store.states() == ["verified"] * 3, "verified")
    assert [row.proof for row in store.rows()] == ["status", "status", "exists"]
    assert [row.reason for row in store.rows()] == [RIVALS, RIVALS, None]


async def test_a_clock_that_was_set_back_delays_no_proof(store):
    archive = holding(delivered(store, 1))
    store.ledger.write(lambda connection: connection.execute(update(deliveries).values(changed_at=time.time() + 86_400)))
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "exists")], "verified")


def test_an_awaited_report_is_overdue_once_the_clock_is_set_back(store):
    def change(connection):
        commitments.register(connection, "2.25.1", "pacs", [], now=1000.0, deadline_at=1300.0)
        return [commitments.expired(connection, "pacs", now=now) for now in (900.0, 1100.0, 1300.0)]

    assert store.ledger.write(change) == [["2.25.1"], [], ["2.25.1"]]


async def test_what_is_missing_is_sent_once_more(store):
    identities = delivered(store)
    archive = holding(identities)
    del archive.held[identities[1].sop_instance_uid]
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: store.states() == ["verified", "pending", "verified"], "the missing one pending")
    row = store.rows()[1]
    assert (row.lost, row.reason, row.attempts) == (1, "answered success but does not have it", 0)


@pytest.mark.parametrize("uid_lists", [True, False])
@pytest.mark.parametrize("lists", [1, 2, 10])
async def test_what_a_short_list_leaves_out_is_asked_for_by_its_uid(store, lists, uid_lists):
    identities = delivered(store, count=15)
    with holding(identities, lists=lists, uid_lists=uid_lists).running() as archive:
        async with running(store, settings(archive.port)):
            await until(lambda: store.states() == ["verified"] * 15, "all of them verified")


async def test_what_is_lost_behind_a_short_list_is_sent_once_more(store):
    identities = delivered(store, count=15)
    with holding(identities, lists=10).running() as archive:
        del archive.held[identities[12].sop_instance_uid]
        async with running(store, settings(archive.port)):
            states = ["verified"] * 12 + ["pending"] + ["verified"] * 2
            await until(lambda: store.states() == states, "the lost one pending, the others verified")


async def test_what_is_missing_twice_is_held(store):
    identities = delivered(store, 1, lost=1)
    archive = holding(identities)
    archive.held.clear()
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: store.states() == ["held"], "held")
    row = store.rows()[0]
    assert (row.lost, row.reason) == (2, "answered success but does not have it")


async def test_an_archive_that_lists_late_is_asked_twice(store):
    identities = delivered(store, 1)
    archive = holding(identities)
    late = dict(archive.held)
    archive.held.clear()
    original = archive.find

    def find(event):
        yield from original(event)
        archive.held.update(late)

    archive.find = find
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "exists")], "verified at the second look")
    assert archive.finds == 2


async def test_without_c_find_the_status_is_the_proof_said_and_remembered(store):
    archive = holding(delivered(store))
    with archive.running(find=False):
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "status")] * 3, "verified by status")
    assert "answers no C-FIND" in store.rows()[0].reason
    assert "no presentation context" in known(store, NO_FIND)


@pytest.mark.parametrize("status", [0x0122, 0xA900, 0xC001])
async def test_a_destination_that_refuses_c_find_is_believed_too(store, status):
    archive = holding(delivered(store), find_status=status)
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "status")] * 3, "verified by status")
    assert f"{status:04X}" in store.rows()[0].reason


async def test_what_was_learned_spares_the_question(store):
    archive = holding(delivered(store))
    now = time.time()
    store.ledger.write(
        lambda connection: learned.put(
            connection, learned.destination_subject("pacs"), NO_FIND, "it said so", now=now, expires_at=now + 60
        )
    )
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "status")] * 3, "verified by status")
    assert archive.finds == 0


async def test_instances_without_a_study_are_believed(store):
    identity = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", "1.2.840.10008.1.2.1", "", "")
    archive = holding(delivered(store, identity=identity))
    with archive.running():
        async with running(store, settings(archive.port)):
            await until(lambda: proofs(store) == [("verified", "status")], "verified by status")
    assert "Study or Series Instance UID" in store.rows()[0].reason


def came_for_retrieval(store, identities, verdict):
    """Have `identities` come for a retrieval, with its verdict or None while it runs."""

    def record(connection):
        job = retrievals.open_job(connection, "pull", verdict or "open", "{}", now=1.0)
        one = retrievals.open_retrieval(connection, job.id, "archive", identities[0].study_instance_uid, now=1.0)
        uids = [identity.sop_instance_uid for identity in identities]
        connection.execute(update(arrivals).where(arrivals.c.sop_instance_uid.in_(uids)).values(retrieval_id=one.id))
        if verdict is not None:
            retrievals.settle(connection, one.id, VerdictKind(verdict), "", now=2.0)

    store.ledger.write(record)


async def test_a_study_that_was_retrieved_is_asked_for_at_once(store):
    whole, running_still, sent = delivered(store, 2), delivered(store, 1, study=2), delivered(store, 1, study=3)
    came_for_retrieval(store, whole, "complete")
    came_for_retrieval(store, running_still, None)
    archive = holding([*whole, *running_still, *sent])
    with archive.running():
        async with running(store, settings(archive.port, quiet_s=3600)):
            await until(lambda: store.states() == ["verified"] * 2 + ["delivered"] * 2, "what was retrieved verified")
    assert archive.finds == 1


async def test_a_study_still_on_its_way_is_not_asked_for(store):
    busy = delivered(store)
    archive = holding(busy + delivered(store, 1, study=2))
    store.add_synthetic("pacs")
    with archive.running():
        async with running(store, settings(archive.port)) as confirmer:
            await until(lambda: store.states() == ["delivered"] * 3 + ["verified", "pending"], "the quiet study verified")
            assert archive.finds == 1
            (pending,) = [row.id for row in store.rows() if row.state == "pending"]
            now = time.time()
            store.ledger.write(lambda connection: transitions.move(connection, [pending], S.HELD, now=now))
            confirmer.nudge("pacs")
            await until(lambda: store.states() == ["verified"] * 4 + ["held"], "verified once nothing is on its way")


async def test_a_destination_that_is_down_is_asked_when_it_is_back(store, monkeypatch):
    monkeypatch.setattr("gateway.confirm.plan.RETRY_FIRST_S", 0.05)
    monkeypatch.setattr("gateway.confirm.plan.RETRY_MAX_S", 0.05)
    archive = holding(delivered(store))
    port = free_port()
    dead = ScriptedScp(admit=lambda _nth: "close")
    async with running(store, settings(port)):
        with dead.running(port):
            await until(lambda: dead.associations >= 2, "asked twice")
        assert store.states() == ["delivered"] * 3
        with archive.running(port=port):
            await until(lambda: store.states() == ["verified"] * 3, "verified once it is back")


async def test_a_nudge_from_any_thread_wakes_it(store):
    archive = Archive()
    with archive.running():
        async with running(store, settings(archive.port)) as confirmer:
            for identity in delivered(store):
                archive.knows(identity)
                archive.held[identity.sop_instance_uid] = b""
            await trio.to_thread.run_sync(confirmer.nudge, "pacs")
            await until(lambda: store.states() == ["verified"] * 3, "verified")


async def test_commitment_reported_on_the_same_association(store):
    archive = holding(delivered(store))
    with archive.running(commitment=True):
        async with running(store, settings(archive.port, verify="commitment")):
            await until(lambda: proofs(store) == [("verified", "commitment")] * 3, "committed")
    assert archive.finds == 0
    assert len(archive.actions) == 1


async def test_what_is_not_committed_is_sent_once_more_then_held(store):
    identities = delivered(store, 2)
    refused = identities[0].sop_instance_uid
    archive = holding(identities, commits=lambda uid: uid != refused)
    with archive.running(commitment=True):
        async with running(store, settings(archive.port, verify="commitment")) as confirmer:
            await until(lambda: store.states() == ["pending", "verified"], "one pending, one committed")
            assert "0112" in store.rows()[0].reason
            now = time.time()

            def send_again(connection):
                (item,) = table.claim(connection, "pacs", now=now + 1, max_instances=9, max_bytes=1 << 20).consignments
                transitions.move(connection, [item.delivery_id], S.DELIVERED, now=now)

            store.ledger.write(send_again)
            confirmer.nudge()
            await until(lambda: store.states() == ["held", "verified"], "held")


async def test_without_a_report_in_time_existence_is_asked_and_that_is_said(store, monkeypatch):
    monkeypatch.setattr("gateway.confirm.peer.SAME_ASSOCIATION_S", 0.25)
    archive = holding(delivered(store), reports=False)
    with archive.running(commitment=True):
        async with running(store, settings(archive.port, verify="commitment", commitment_timeout_s=0.2)):
            await until(lambda: proofs(store) == [("verified", "exists")] * 3, "verified by listing")
    assert "no commitment report within 0.2 s" in store.rows()[0].reason


async def test_a_destination_without_storage_commitment_is_asked_for_existence(store):
    archive = holding(delivered(store))
    with archive.running(commitment=False):
        async with running(store, settings(archive.port, verify="commitment")):
            await until(lambda: proofs(store) == [("verified", "exists")] * 3, "verified by listing")
    assert "no commitment" in store.rows()[0].reason
    assert known(store, NO_COMMITMENT)


def registered(store, deadline_s=60.0):
    ids = [row.id for row in store.rows()]
    now = time.time()
    store.ledger.write(
        lambda connection: commitments.register(connection, "2.25.1", "pacs", ids, now=now, deadline_at=now + deadline_s)
    )


def reference(identity):
    return InstanceReference(identity.sop_class_uid, identity.sop_instance_uid)


def test_a_report_that_nobody_waits_for_is_refused(store):
    assert Confirmer(store.ledger, settings(1)).report(CommitmentReport("2.25.9", (), ())) == 0x0115


def test_a_report_may_come_twice_and_changes_nothing_the_second_time(store):
    identities = delivered(store, 2)
    registered(store)
    confirmer = Confirmer(store.ledger, settings(1))
    good = CommitmentReport("2.25.1", tuple(reference(identity) for identity in identities), ())
    assert confirmer.report(good) == 0
    bad = CommitmentReport("2.25.1", (), tuple(FailedReference("1.2", one.sop_instance_uid, 0x0112) for one in identities))
    assert confirmer.report(bad) == 0
    assert proofs(store) == [("verified", "commitment")] * 2


def test_what_is_both_committed_and_failed_failed(store):
    (identity,) = delivered(store, 1)
    registered(store)
    failed = FailedReference(identity.sop_class_uid, identity.sop_instance_uid, 0x0110)
    assert Confirmer(store.ledger, settings(1)).report(CommitmentReport("2.25.1", (reference(identity),), (failed,))) == 0
    assert store.states() == ["pending"]


async def test_what_a_report_does_not_name_is_proved_by_listing(store):
    identities = delivered(store, 2)
    registered(store)
    archive = holding(identities)
    with archive.running(commitment=True):
        async with running(store, settings(archive.port, verify="commitment")) as confirmer:
            confirmer.report(CommitmentReport("2.25.1", (reference(identities[0]),), ()))
            await until(lambda: proofs(store) == [("verified", "commitment"), ("verified", "exists")], "both proved")
    assert archive.actions == []


async def test_a_report_after_a_restart_finds_its_transaction(store):
    identities = delivered(store, 2)
    registered(store)
    async with running(store, settings(free_port(), verify="commitment")) as confirmer:
        report = CommitmentReport("2.25.1", tuple(reference(identity) for identity in identities), ())
        assert await trio.to_thread.run_sync(confirmer.report, report) == 0
        assert proofs(store) == [("verified", "commitment")] * 2


async def test_destinations_verified_by_status_get_no_queries(store):
    trusted, asked = Archive(), holding(delivered(store))
    store.ledger.write(lambda connection: add_deliveries(connection, 1, ["trusted"], now=0.0))
    with trusted.running(), asked.running():
        both = settings(asked.port).model_dump(exclude_unset=True)
        both["destinations"]["trusted"] = both["destinations"]["pacs"] | {"port": trusted.port, "verify": "status"}
        async with running(store, Settings.model_validate(both)):
            await until(lambda: store.states(to="pacs") == ["verified"] * 3, "the other one asked")
    assert trusted.finds == 0
