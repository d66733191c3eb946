"""Properties of a destination that is a Storage SCP."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from gateway.association.dimse.statuses import STORE_TABLE
from gateway.core.domain import Consignment, Content, InstanceIdentity, Proof, StatusClass
from gateway.core.errors import AssociationError, AssociationRejected, PeerTimeout
from gateway.delivery.adapters.dicom import CStore, proposal, split
from gateway.delivery.destination import OutcomeKind
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.forms import refusal
from tests.delivery.outcomes import Outcomes
from tests.delivery.sites import dicom_settings
from tests.support import instances
from tests.support.archive import Archive
from tests.support.ports import free_port
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import PATIENCE_S, until, wait_until

EXPLICIT, IMPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FAST = {"attempts": 3, "first_s": 0.02, "max_s": 0.05}


def consignment(number, sop_class=CT, syntax=EXPLICIT, **values):
    identity = InstanceIdentity(sop_class, f"1.2.{number}", syntax, "1.2", "1.2.1")
    return Consignment(number, number, "pacs", identity, Content("spool:x", 0, 1, ""), **({"attempts": 0} | values))


@pytest.fixture
def consign(store):
    def make(number, data=b"data set", *, syntax=EXPLICIT, **values):
        identity = instances.synthetic(number, syntax=syntax)
        return Consignment(number, number, "pacs", identity, store.keep(identity, data), **({"attempts": 0} | values))

    return make


def scripted(**values):
    """A scripted SCP that is for storage only."""
    return ScriptedScp(**{"negotiate": lambda abstract, syntaxes: None if abstract == FIND else syntaxes[0]} | values)


@pytest.fixture
def opened(store):
    """Open sessions that end with the test."""
    sessions = []

    def make(port, **values):
        sessions.append(CStore("pacs", dicom_settings(port, **values), "GATEWAY", store.spool).open())
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


def deliver(session, *consignments):
    outcomes = Outcomes()
    session.deliver(consignments, outcomes)
    return outcomes.by_number()


@asynccontextmanager
async def dispatching(store, port, **values):
    settings = dicom_settings(port, retry=FAST, **values)
    dispatcher = Dispatcher(store.ledger, [CStore("pacs", settings, "GATEWAY", store.spool)])
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        yield dispatcher
        nursery.cancel_scope.cancel()


def test_a_batch_of_many_syntaxes_is_split_over_associations_in_order():
    batch = [consignment(number, syntax=f"1.2.{number % 5}") for number in range(12)]
    parts = split(batch, lambda item: ((CT, item.identity.transfer_syntax_uid),), limit=2)
    assert [[item.delivery_id for item in part] for part in parts] == [[0, 1, 5, 6, 10, 11], [2, 3, 7, 8], [4, 9]]


def test_earlier_contexts_are_proposed_again_as_far_as_there_is_room():
    assert proposal([("CT", "a")], [("MR", "a"), ("CT", "a"), ("US", "b")], limit=2) == (("CT", "a"), ("MR", "a"))


def test_a_refusal_names_sop_class_and_transfer_syntax_in_words():
    words = refusal(InstanceIdentity(CT, "1.2", J2K))
    assert words == "destination accepts no CT Image Storage in transfer syntax JPEG 2000 Image Compression (Lossless Only)"


def test_a_refused_transfer_syntax_refuses_its_own_instances_only(opened, consign):
    with Archive().running(syntaxes=[EXPLICIT]) as archive:
        outcomes = deliver(opened(archive.port), consign(1), consign(2, syntax=J2K), consign(3))
    assert outcomes[2].kind is OutcomeKind.REFUSED
    assert outcomes[2].reason.startswith("destination accepts no CT Image Storage in transfer syntax JPEG 2000")
    assert len(archive.held) == 2


def test_a_destination_that_accepts_nothing_at_all_refuses_every_instance(opened, consign):
    with scripted(negotiate=lambda _abstract, _syntaxes: None).running() as scp:
        outcomes = deliver(opened(scp.port), consign(1), consign(2))
    assert [outcome.kind for outcome in outcomes.values()] == [OutcomeKind.REFUSED] * 2


def test_a_session_keeps_its_association_while_the_contexts_suffice(opened, consign):
    with scripted().running() as scp:
        session = opened(scp.port)
        deliver(session, consign(1), consign(2, syntax=J2K))
        deliver(session, consign(3, syntax=J2K))
        deliver(session, consign(4))
        assert scp.associations == 1
        deliver(session, consign(5, syntax=IMPLICIT))
        deliver(session, consign(6))
        assert scp.associations == 2
        session.close()


def test_more_syntaxes_than_contexts_take_more_associations(opened, consign):
    with scripted().running() as scp:
        batch = [replace(consign(n), identity=instances.synthetic(n, syntax=f"1.2.3.{n}")) for n in range(1, 131)]
        outcomes = deliver(opened(scp.port), *batch)
    assert len(outcomes) == len(scp.stores) == 130
    assert scp.associations == 2


def test_the_move_that_an_instance_came_by_is_not_passed_on(opened, consign):
    with scripted().running() as scp:
        deliver(opened(scp.port), consign(1))
    assert scp.stores[0].move_originator_ae == ""


def test_an_idle_association_closed_by_the_destination_costs_nothing(opened, consign):
    first = threading.Event()

    def answer(nth, _store):
        if nth == 2 and not first.is_set():
            first.set()
            return "close"
        return 0x0000

    with scripted(answer=answer).running() as scp:
        session = opened(scp.port)
        deliver(session, consign(1))
        outcomes = deliver(session, consign(2))
    assert outcomes[2].status == 0
    assert scp.associations == 2


def test_a_break_in_the_middle_leaves_one_unknown_and_the_rest_unsent(opened, consign):
    with scripted(answer=lambda nth, _store: "abort" if nth == 2 else 0x0000).running() as scp:
        session, outcomes = opened(scp.port), Outcomes()
        with pytest.raises(AssociationError):
            session.deliver([consign(n) for n in (1, 2, 3)], outcomes)
    assert {outcome.delivery_id: outcome.kind for outcome in outcomes} == {1: OutcomeKind.ANSWERED, 2: OutcomeKind.UNKNOWN}


def test_a_rejected_association_reports_nothing(opened, consign):
    with scripted(admit=lambda _nth: (2, 3, 2)).running() as scp, pytest.raises(AssociationRejected):
        deliver(opened(scp.port), consign(1))


def test_a_destination_that_never_answers_is_given_up_in_time(opened, consign):
    with scripted(answer=lambda _nth, _store: "hang").running() as scp:
        outcomes = Outcomes()
        with pytest.raises(PeerTimeout):
            opened(scp.port, response_timeout_s=0.3).deliver([consign(1)], outcomes)
        assert [outcome.kind for outcome in outcomes] == [OutcomeKind.UNKNOWN]


def test_killing_a_session_ends_a_hanging_c_store_at_once(opened, consign):
    with scripted(answer=lambda _nth, _store: "hang").running() as scp:
        session, outcomes = opened(scp.port), Outcomes()

        def run():
            with pytest.raises(AssociationError):
                session.deliver([consign(1), consign(2)], outcomes)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: scp.stores, "an instance")
        session.kill()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert [outcome.kind for outcome in outcomes] == [OutcomeKind.UNKNOWN]


def test_after_an_unknown_outcome_it_asks_before_it_sends_again(opened, consign):
    item = consign(1)
    archive = Archive()
    archive.knows(item.identity)
    with archive.running():
        session = opened(archive.port)
        deliver(session, item)
        (outcome,) = deliver(session, replace(item, uncertain=True)).values()
    assert (outcome.kind, outcome.proof) == (OutcomeKind.FOUND, Proof.EXISTS)
    assert len(archive.arrivals) == 1


@pytest.mark.parametrize(("find", "find_status"), [(False, 0), (True, 0xC000), (True, 0x0122)])
def test_where_it_cannot_ask_it_sends_again(opened, consign, find, find_status):
    archive = Archive(find_status=find_status)
    with archive.running(find=find):
        session = opened(archive.port)
        (outcome,) = deliver(session, consign(1, uncertain=True)).values()
    assert (outcome.kind, outcome.status) == (OutcomeKind.ANSWERED, 0)


def test_a_query_on_an_association_ended_while_idle_is_asked_again(opened, consign):
    item = consign(1)
    archive, port = Archive(), free_port()
    archive.knows(item.identity)
    with archive.running(port=port):
        session = opened(port)
        deliver(session, item)
    with archive.running(port=port):
        (outcome,) = deliver(session, replace(item, uncertain=True)).values()
        assert outcome.kind is OutcomeKind.FOUND
        session.close()


def test_newer_content_is_sent_even_where_the_uid_is_there_already(opened, consign):
    item = consign(1, b"newer!", uncertain=True, has_rivals=True)
    archive = Archive()
    archive.knows(item.identity)
    archive.held[item.identity.sop_instance_uid] = b"older"
    with archive.running():
        session = opened(archive.port)
        deliver(session, item)
    assert archive.held[item.identity.sop_instance_uid] == b"newer!"


@pytest.mark.parametrize("there", [True, False])
def test_a_duplicate_is_looked_for(opened, consign, there):
    item = consign(1)
    archive = Archive(status=lambda _uid: 0x0111)
    if there:
        archive.knows(item.identity)
        archive.held[item.identity.sop_instance_uid] = b""
    with archive.running():
        session = opened(archive.port)
        (outcome,) = deliver(session, item).values()
    assert (outcome.status, outcome.found) == (0x0111, there)


def test_the_second_try_after_a_failure_is_on_a_new_association(opened, consign):
    with scripted(answer=lambda nth, _store: 0x0110 if nth == 1 else 0).running() as scp:
        session = opened(scp.port)
        deliver(session, consign(1))
        deliver(session, consign(1, attempts=1, last_status=0x0110))
    assert scp.associations == 2


END = {
    StatusClass.DONE: "verified",
    StatusClass.WARNING: "verified",
    StatusClass.DUPLICATE: "verified",
    StatusClass.RETRY: "held",
    StatusClass.RETRY_ONCE: "held",
    StatusClass.REFUSE: "held",
}
TRIES = {StatusClass.RETRY: 3, StatusClass.RETRY_ONCE: 2}


async def test_each_row_of_the_status_table_ends_as_it_says(store):
    rows = {f"1.2.826.0.1.3680043.10.1338.77.1.1.{number}": row for number, row in enumerate(STORE_TABLE, start=1)}
    assert store.add_synthetic("pacs", count=len(rows)) == list(rows)
    with scripted(answer=lambda _nth, received: rows[received.uid].first).running() as scp:
        async with dispatching(store, scp.port, verify="status"):
            await until(lambda: set(store.states()) <= {"verified", "held"}, "everything verified or held")
    for found in store.rows():
        row = rows[found.sop_instance_uid]
        expected = STORE_TABLE[[entry.first <= row.first <= entry.last for entry in STORE_TABLE].index(True)].status_class
        assert found.state == END[expected], (f"{row.first:04X}", found.reason)
        assert scp.uids.count(found.sop_instance_uid) == TRIES.get(expected, 1), f"{row.first:04X}"
        assert (found.reason is None) == (row.first == 0), found.reason


async def test_a_destination_that_comes_back_gets_everything_once(store):
    uids = store.add_synthetic("pacs", count=20)
    scp = scripted(answer=lambda nth, _store: "close" if nth == 7 else 0x0000)
    with scp.running() as first:
        port = first.port
        async with dispatching(store, port, verify="status", associations=1):
            await until(lambda: store.states() == ["verified"] * 20, "all there")
    assert sorted(set(scp.uids)) == sorted(uids)
    assert len(scp.uids) == 21


async def test_a_dead_destination_does_not_slow_a_good_one(store):
    store.add_synthetic("pacs", "dead", count=100)
    with scripted().running() as scp, scripted(answer=lambda _nth, _store: "hang").running() as hanging:
        settings = [dicom_settings(port, retry=FAST, verify="status", associations=2) for port in (scp.port, hanging.port)]
        adapters = [CStore(name, table, "GATEWAY", store.spool) for name, table in zip(("pacs", "dead"), settings, strict=True)]
        dispatcher = Dispatcher(store.ledger, adapters)
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run)
            await until(lambda: store.states(to="pacs") == ["verified"] * 100, "the good one done")
            assert "verified" not in store.states(to="dead")
            assert not await dispatcher.drain(0.1)
    assert set(store.states(to="dead")) == {"pending"}
    assert sum(bool(row.uncertain) for row in store.rows(to="dead")) == 2
