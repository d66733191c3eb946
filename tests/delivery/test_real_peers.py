"""Delivery and confirmation against DCMTK's storescp and Orthanc."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager

import pytest
import trio

from gateway.association.dimse.services import Limits, ListenerSpec
from gateway.association.scp.acceptor import Acceptor
from gateway.association.scp.admission import KnownSources
from gateway.association.scp.service_classes import usual
from gateway.config.settings import Settings
from gateway.confirm import Confirmer
from gateway.delivery import CircuitState, Dispatcher, destinations
from gateway.delivery.adapters.dicom import CStore
from gateway.delivery.lanes import hours as hours_module
from tests.support.clocks import NIGHTS, WallClock
from tests.support.comparing import differences
from tests.support.dcmtk import storescp
from tests.support.orthanc import orthanc
from tests.support.ports import HOST, free_port
from tests.support.throttles import Counting
from tests.support.waiting import until

pytestmark = pytest.mark.peers

FAST = {"attempts": 3, "first_s": 0.05, "max_s": 0.2}


def settings(**named):
    """Make settings of destinations given as name to (port, values)."""
    tables = {
        name: {"kind": "dicom", "ae_title": "PEER", "host": HOST, "port": port, "quiet_s": 0.3, "retry": FAST} | values
        for name, (port, values) in named.items()
    }
    return Settings.model_validate({"destinations": tables})


@asynccontextmanager
async def working(store, configuration):
    """Deliver and confirm as the gateway does."""
    confirmers = []

    def changed(name):
        for confirmer in confirmers:
            confirmer.nudge(name)

    dispatcher = Dispatcher(store.ledger, destinations(configuration, store.spool), changed=changed)
    confirmer = Confirmer(store.ledger, configuration, changed=dispatcher.nudge)
    confirmers.append(confirmer)
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        await nursery.start(confirmer.run)
        yield dispatcher, confirmer
        nursery.cancel_scope.cancel()


def settled(store, to=None):
    return lambda: set(store.states(to=to)) <= {"verified", "held"}


async def test_real_files_reach_storescp_unchanged_in_their_own_syntax(store, real_files, tmp_path):
    sources = {store.add_file(path, "scp"): path for path in real_files}
    with storescp(tmp_path / "scp") as scp:
        async with working(store, settings(scp=(scp.port, {}))):
            await until(settled(store), "everything settled")
        received = scp.received()
    refused = {row.sop_instance_uid: row.reason for row in store.rows() if row.state == "held"}
    assert all(reason.startswith("destination accepts no") for reason in refused.values()), refused
    assert received.keys() == sources.keys() - refused.keys()
    assert len(received) > len(refused)
    assert {uid: found for uid, path in sources.items() if uid in received and (found := differences(path, received[uid]))} == {}
    assert {row.proof for row in store.rows() if row.state == "verified"} == {"status"}


async def test_rejected_associations_cost_no_attempt_and_all_is_sent_later(store, ct_series, tmp_path):
    for path in ct_series(5):
        store.add_file(path, "scp")
    port = free_port()
    async with working(store, settings(scp=(port, {"verify": "status"}))) as (dispatcher, _):
        with storescp(tmp_path / "refusing", "--refuse", port=port):
            dispatcher.retry()
            await until(lambda: "rejected" in dispatcher.circuits()["scp"].reason, "rejected")
        assert {row.attempts for row in store.rows()} == {0}
        with storescp(tmp_path / "scp", port=port) as scp:
            await until(lambda: store.states() == ["verified"] * 5, "delivered")
            assert len(scp.received()) == 5
            assert dispatcher.circuits()["scp"].state is CircuitState.CLOSED


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
async def test_aborts_of_each_c_store_are_unknown_outcomes_and_end_in_a_hold(store, ct_series, tmp_path, option):
    store.add_file(ct_series(1)[0], "scp")
    with storescp(tmp_path / "scp", option) as scp:
        async with working(store, settings(scp=(scp.port, {"verify": "status"}))):
            await until(lambda: store.states() == ["held"], "held")
    (row,) = store.rows()
    assert (row.attempts, bool(row.uncertain)) == (3, True)
    assert "no answer" in row.reason


async def test_a_stopped_peer_goes_on_where_it_stopped(store, ct_series, tmp_path):
    for path in ct_series(5):
        store.add_file(path, "scp", "good")
    with storescp(tmp_path / "scp") as scp, storescp(tmp_path / "good") as good:
        scp.process.signal(signal.SIGSTOP)
        both = settings(scp=(scp.port, {"verify": "status", "response_timeout_s": 1}), good=(good.port, {"verify": "status"}))
        async with working(store, both):
            await until(lambda: store.states(to="good") == ["verified"] * 5, "the good one done")
            assert "verified" not in store.states(to="scp")
            scp.process.signal(signal.SIGCONT)
            await until(lambda: store.states(to="scp") == ["verified"] * 5, "the stopped one done")
        assert len(scp.received()) == 5


async def test_every_real_file_is_proved_on_an_orthanc_over_mutual_tls(store, real_files, tmp_path, ca):
    sources = {store.add_file(path, "orthanc"): path for path in real_files}
    with orthanc(tmp_path / "orthanc", tls=ca.issue("orthanc")) as peer:
        tls = {key: str(path) for key, path in ca.issue("gateway").items()}
        async with working(store, settings(orthanc=(peer.port, {"ae_title": "ORTHANC", "tls": tls}))):
            await until(settled(store), "everything settled", 110)
        held = {row.sop_instance_uid: row.reason for row in store.rows() if row.state == "held"}
        proofs = {row.proof for row in store.rows() if row.state == "verified"}
        on_it = peer.instances()
        assert on_it.keys() == sources.keys() - held.keys(), held
        different = {uid: differences(sources[uid], peer.file(on_it[uid])) for uid in on_it}
    assert proofs == {"exists"}
    assert len(held) <= 5, held
    assert {uid: found for uid, found in different.items() if found} == {}


async def test_an_untrusted_certificate_is_named_and_costs_no_attempt(store, ct_series, tmp_path, ca):
    from tests.support.certificates import TestCA

    store.add_file(ct_series(1)[0], "orthanc")
    stranger = TestCA(tmp_path / "stranger", "Stranger CA").issue("stranger")
    with orthanc(tmp_path / "orthanc", tls=ca.issue("orthanc")) as peer:
        tls = {key: str(path) for key, path in stranger.items()}
        async with working(store, settings(orthanc=(peer.port, {"tls": tls}))) as (dispatcher, _):
            await until(lambda: dispatcher.circuits()["orthanc"].failures >= 1, "it failed")
            assert "certificate" in dispatcher.circuits()["orthanc"].reason
    assert store.rows()[0].attempts == 0


class NoStorage:
    """Takes nothing: the acceptor is there for reports only."""

    def receive(self, association, request):
        raise NotImplementedError


async def test_orthanc_commits_and_reports_on_a_new_association(store, ct_series, tmp_path):
    for path in ct_series(5):
        store.add_file(path, "orthanc")
    port = free_port()
    with orthanc(tmp_path / "orthanc", modalities={"GATEWAY": (HOST, port)}) as peer:
        configuration = settings(orthanc=(peer.port, {"ae_title": "ORTHANC", "verify": "commitment"}))
        async with working(store, configuration) as (_, confirmer):
            acceptor = Acceptor(
                [ListenerSpec(HOST, port)],
                admission=KnownSources(configuration, {}),
                services=usual(NoStorage(), confirmer),
                limits=Limits(),
            )
            acceptor.start()
            try:
                await until(lambda: store.states() == ["verified"] * 5, "committed")
            finally:
                await trio.to_thread.run_sync(acceptor.close)
    assert {row.proof for row in store.rows()} == {"commitment"}


async def test_what_an_orthanc_lost_is_sent_again(store, ct_series, tmp_path):
    uids = [store.add_file(path, "orthanc") for path in ct_series(4)]
    with orthanc(tmp_path / "orthanc") as peer:
        configuration = settings(orthanc=(peer.port, {"ae_title": "ORTHANC", "quiet_s": 2.0}))
        async with working(store, configuration):
            await until(lambda: store.states() == ["delivered"] * 4, "delivered")
            identifier = peer.instances()[uids[2]]
            peer.rest.delete(f"/instances/{identifier}").raise_for_status()
            await until(lambda: store.states() == ["verified"] * 4, "all verified in the end")
        assert set(peer.instances()) == set(uids)
    assert [row.lost for row in store.rows()] == [0, 0, 1, 0]


async def test_a_restart_in_the_middle_loses_nothing(store, ct_series, tmp_path):
    # More than an Orthanc takes while it is found out that some are there.
    uids = [store.add_file(path, "orthanc") for path in ct_series(400)]
    with orthanc(tmp_path / "orthanc") as peer:
        configuration = settings(orthanc=(peer.port, {"ae_title": "ORTHANC", "associations": 1}))
        async with working(store, configuration):
            await until(lambda: peer.count() >= 5, "some are there")
        assert set(store.states()) & {"pending"}
        assert "sending" not in store.states()
        async with working(store, configuration):
            await until(lambda: store.states() == ["verified"] * len(uids), "all verified")
        assert set(peer.instances()) == set(uids)


async def test_storescp_gets_the_rest_of_a_batch_in_the_next_hours(store, ct_series, tmp_path, monkeypatch, nursery):
    monkeypatch.setattr(hours_module, "LONGEST_SLEEP_S", 0.02)
    clock, paths = WallClock(5), ct_series(8)
    uids = {store.add_file(path, "scp"): path for path in paths}

    def end_with_the_fourth(_asked_s):
        if len(throttle.taken) == 4:
            clock.set(6)
        return 0.001

    throttle = Counting(1_000_000.0, end_with_the_fourth)
    with storescp(tmp_path / "scp") as scp:
        table = settings(scp=(scp.port, {"verify": "status", "associations": 1})).destinations["scp"]
        destination = CStore("scp", table, "GATEWAY", store.spool, hours=NIGHTS, throttle=throttle)
        await nursery.start(Dispatcher(store.ledger, [destination], clock=clock).run)
        await until(lambda: store.states() == ["verified"] * 4 + ["pending"] * 4, "the rest waits")
        assert len(scp.received()) == 4
        assert {row.attempts for row in store.rows() if row.state == "pending"} == {0}
        clock.set(19)
        await until(settled(store), "the rest at night")
        received = scp.received()
    nursery.cancel_scope.cancel()
    assert {uid: found for uid, path in uids.items() if (found := differences(path, received[uid]))} == {}
    assert sum(throttle.taken) >= sum(path.stat().st_size for path in paths) - 8 * 1000
