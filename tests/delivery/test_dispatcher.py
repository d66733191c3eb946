"""The dispatcher over a real ledger and spool, with destinations that do as scripted."""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager

import pytest
import trio
from sqlalchemy import Engine, event, update

from gateway.config.settings import FolderDestination, RetryTable
from gateway.core import metrics
from gateway.core.domain import Consignment, Proof
from gateway.core.errors import AssociationAborted, PeerUnreachable
from gateway.delivery.adapters.folder import Folder
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.lanes import crew, worker_state
from gateway.delivery.lanes.circuit import CircuitState
from gateway.ledger.database.schema import deliveries
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import mending
from tests.delivery.scripted import Scripted, ScriptedSession, states_are
from tests.support.waiting import PATIENCE_S, until

FAR = 10.0**12


class Changes:
    """Counts what the dispatcher says has changed, so that a test waits instead of sleeping."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, destination: str) -> None:
        self.seen.append(destination)


@asynccontextmanager
async def running(store, *destinations, changed=lambda _name: None):
    dispatcher = Dispatcher(store.ledger, destinations, changed=changed)
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        yield dispatcher
        nursery.cancel_scope.cancel()


async def test_what_is_pending_at_start_is_delivered_in_order(store):
    uids = store.add_synthetic("a", count=5)
    a = Scripted("a")
    async with running(store, a):
        await until(states_are(store, *["verified"] * 5), "all verified")
    assert a.delivered == uids


async def test_metrics_count_attempts_by_what_they_led_to(store):
    store.add_synthetic("counted", count=2)

    def deliver(item):
        kind = OutcomeKind.STORED if item.delivery_id == 1 else OutcomeKind.UNREADABLE
        return Outcome(item.delivery_id, kind, reason="as scripted")

    async with running(store, Scripted("counted", deliver)):
        await until(states_are(store, "verified", "held"), "both tried")
    counted = {key: count for key, count in metrics.DELIVERIES.series().items() if key[0] == "counted"}
    assert counted == {("counted", "delivered"): 1, ("counted", "held"): 1}


async def test_deliveries_to_a_removed_destination_are_held_until_it_is_back(store):
    store.add_synthetic("a", "old", count=2)
    store.ledger.write(lambda connection: table.claim(connection, "old", now=FAR, max_instances=1, max_bytes=1))
    async with running(store, Scripted("a")):
        await until(states_are(store, "verified", "verified", to="a"), "verified")
    assert [(row.state, row.reason) for row in store.rows(to="old")] == [("held", mending.NOT_CONFIGURED)] * 2
    old = Scripted("old")
    async with running(store, Scripted("a"), old):
        await until(states_are(store, "verified", "verified", to="old"), "verified at the one that is back")


async def test_a_proof_due_from_a_removed_destination_is_asked_on_its_return(store):
    store.add_synthetic("old")
    async with running(store, Scripted("old", instant_proof=None)):
        await until(states_are(store, "delivered"), "delivered")
    async with running(store, Scripted("a")):
        assert store.states() == ["held"]
    asked = []
    async with running(store, Scripted("old", lambda item: asked.append(item) or Outcome(item.delivery_id, OutcomeKind.FOUND))):
        await until(states_are(store, "verified"), "verified")
    assert [item.uncertain for item in asked] == [True]


async def test_a_delivery_whose_proof_is_no_longer_wanted_is_verified_by_status(store):
    store.add_synthetic("a")
    async with running(store, Scripted("a", instant_proof=None)):
        await until(states_are(store, "delivered"), "delivered")
    async with running(store, Scripted("a", instant_proof=Proof.STATUS)):
        (row,) = store.rows()
    assert (row.state, row.proof, row.reason) == ("verified", "status", mending.NO_PROOF_ASKED)


async def test_a_clock_that_was_set_back_by_a_day_delays_nothing(store):
    store.add_synthetic("a", count=3)
    store.ledger.write(lambda connection: connection.execute(update(deliveries).values(due_at=time.time() + 86_400)))
    async with running(store, Scripted("a")):
        await until(states_are(store, *["verified"] * 3), "verified")


async def test_a_clock_set_back_starves_no_delivery(store):
    """A delivery due tomorrow by the old clock is not the last for ever: each claim brings it forward."""
    store.add_synthetic("a")
    store.ledger.write(lambda connection: connection.execute(update(deliveries).values(due_at=time.time() + 86_400)))
    now = time.time()
    moved = store.ledger.write(lambda connection: mending.pull_forward(connection, "a", now=now, horizon_s=100.0))
    assert moved == 1
    assert store.ledger.write(lambda connection: mending.pull_forward(connection, "a", now=now, horizon_s=100.0)) == 0


async def test_a_nudge_from_any_thread_wakes_it(store):
    a = Scripted("a")
    async with running(store, a) as dispatcher:
        store.add_synthetic("a")
        await trio.to_thread.run_sync(dispatcher.nudge, "a")
        await until(states_are(store, "verified"), "verified")


async def test_it_says_when_something_changed(store):
    store.add_synthetic("a")
    changes = Changes()
    async with running(store, Scripted("a"), changed=changes):
        await until(lambda: changes.seen == ["a"], "told")
        assert store.states() == ["verified"]


async def test_without_a_proof_at_once_deliveries_wait_for_confirmation(store):
    store.add_synthetic("a")
    async with running(store, Scripted("a", instant_proof=None)):
        await until(states_are(store, "delivered"), "delivered")


async def test_workers_share_the_work(store):
    meet = threading.Barrier(3, timeout=PATIENCE_S)
    seen = threading.local()

    def answer(item):
        if not getattr(seen, "met", False):
            seen.met = True
            meet.wait()
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    store.add_synthetic("a", count=9)
    async with running(store, Scripted("a", answer, workers=3)):
        await until(states_are(store, *["verified"] * 9), "all verified by three at a time")


async def test_a_hanging_destination_does_not_slow_another(store):
    release = threading.Event()

    def hang(item):
        release.wait(PATIENCE_S)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    store.add_synthetic("stuck", "good", count=200)
    stuck = Scripted("stuck", hang, workers=64)
    try:
        async with running(store, stuck, Scripted("good")):
            await until(states_are(store, *["verified"] * 200, to="good"), "the good one done")
            assert "verified" not in store.states(to="stuck")
            release.set()
    finally:
        release.set()


async def test_a_dead_destination_costs_its_instances_no_attempts(store):
    alive = threading.Event()
    tried = []

    def connect():
        tried.append(time.monotonic())
        if not alive.is_set():
            raise PeerUnreachable("connection refused", peer="A@127.0.0.1:1")

    store.add_synthetic("a", count=3)
    a = Scripted("a", connect=connect)
    async with running(store, a) as dispatcher:
        await until(lambda: len(tried) >= 8, "tried more often than an instance may be")
        view = dispatcher.circuits()["a"]
        assert view.state is not CircuitState.CLOSED
        assert "connection refused" in view.reason
        assert {row.attempts for row in store.rows()} == {0}
        assert "held" not in store.states()
        alive.set()
        await until(states_are(store, *["verified"] * 3), "delivered once it is back")
        assert dispatcher.circuits()["a"].state is CircuitState.CLOSED


async def test_a_half_open_circuit_lets_one_instance_probe(store):
    failing = threading.Event()
    failing.set()

    def connect():
        if failing.is_set():
            failing.clear()
            raise PeerUnreachable("connection refused")

    store.add_synthetic("a", count=10)
    a = Scripted("a", connect=connect)
    async with running(store, a):
        await until(states_are(store, *["verified"] * 10), "delivered")
    assert [len(batch) for batch in a.batches] == [1, 9]


async def test_a_person_may_have_a_dead_destination_tried_at_once(store):
    alive = threading.Event()
    tried = threading.Event()

    def connect():
        tried.set()
        if not alive.is_set():
            raise PeerUnreachable("connection refused")

    store.add_synthetic("a")
    a = Scripted("a", connect=connect, retry=RetryTable(first_s=3600, max_s=3600))
    async with running(store, a) as dispatcher:
        await until(lambda: store.states() == ["deferred"] and tried.is_set(), "deferred")
        alive.set()
        now = time.time()
        (row,) = store.rows()
        store.ledger.write(
            lambda connection: table.move(connection, [row.id], table.DeliveryState.PENDING, now=now, due_at=now, reason=None)
        )
        dispatcher.retry("a")
        await until(states_are(store, "verified"), "delivered at once")


async def test_an_instance_that_breaks_associations_is_held_others_go_through(store):
    uids = store.add_synthetic("a", count=4)

    class Breaking(ScriptedSession):
        def deliver(self, batch, report):
            for item in batch:
                if item.identity.sop_instance_uid == uids[1]:
                    report(Outcome(item.delivery_id, OutcomeKind.UNKNOWN, reason="no answer"))
                    raise AssociationAborted("closed")
                report(Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0))

    a = Scripted("a")
    a.open = lambda: Breaking(a)
    async with running(store, a):
        await until(states_are(store, "verified", "held", "verified", "verified"), "one held, the others there")
    held = store.row(uids[1])
    assert (held.attempts, bool(held.uncertain)) == (3, True)
    assert [row.attempts for row in store.rows()] == [1, 3, 1, 1]


async def test_a_busy_destination_is_tried_again_until_it_takes_it(store):
    answers = iter([0xA700, 0xA700, 0x0000])
    store.add_synthetic("a")
    a = Scripted("a", lambda item: Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=next(answers)))
    async with running(store, a):
        await until(states_are(store, "verified"), "verified")
    assert store.rows()[0].attempts == 3


async def test_a_fault_in_an_adapter_holds_its_deliveries_and_others_go_on(store):
    def broken(item):
        raise ZeroDivisionError

    store.add_synthetic("a", "b", count=2)
    a = Scripted("a", broken, retry=RetryTable(attempts=1))
    async with running(store, a, Scripted("b")):
        await until(states_are(store, "held", "held", to="a"), "held with the reason")
        await until(states_are(store, "verified", "verified", to="b"), "the other one done")
    assert "ZeroDivisionError" in store.rows(to="a")[0].reason


async def test_an_idle_session_is_closed(store):
    store.add_synthetic("a")
    a = Scripted("a", idle_close_s=0.05)
    async with running(store, a):
        await until(lambda: a.closed == 1, "closed after it was idle")


async def test_draining_finishes_the_current_instance_and_leaves_the_rest(store):
    begun, release = threading.Event(), threading.Event()

    def slow(item):
        begun.set()
        release.wait(PATIENCE_S)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    store.add_synthetic("a", count=5)
    dispatcher = Dispatcher(store.ledger, [Scripted("a", slow)])
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        await trio.to_thread.run_sync(begun.wait)
        trio.lowlevel.current_trio_token().run_sync_soon(release.set)
        assert await dispatcher.drain(PATIENCE_S)
    assert store.states() == ["verified", "pending", "pending", "pending", "pending"]
    assert not any(row.uncertain for row in store.rows())


async def test_draining_breaks_off_a_slow_instance_as_uncertain(store):
    begun = threading.Event()
    a = Scripted("a")

    class Stuck(ScriptedSession):
        def deliver(self, batch, report):
            begun.set()
            a.killed.wait(PATIENCE_S)
            report(Outcome(batch[0].delivery_id, OutcomeKind.UNKNOWN))
            raise AssociationAborted("killed")

    a.open = lambda: Stuck(a)
    store.add_synthetic("a", count=2)
    dispatcher = Dispatcher(store.ledger, [a])
    async with trio.open_nursery() as nursery:
        await nursery.start(dispatcher.run)
        await trio.to_thread.run_sync(begun.wait)
        assert not await dispatcher.drain(0.05)
    assert store.states() == ["pending", "pending"]
    assert [(row.attempts, bool(row.uncertain)) for row in store.rows()] == [(0, True), (0, False)]


async def test_cancelling_breaks_off_and_puts_back(store):
    begun = threading.Event()
    a = Scripted("a")

    class Stuck(ScriptedSession):
        def deliver(self, batch, report):
            begun.set()
            a.killed.wait(PATIENCE_S)
            raise AssociationAborted("killed")

    a.open = lambda: Stuck(a)
    store.add_synthetic("a", count=2)
    async with running(store, a):
        await trio.to_thread.run_sync(begun.wait)
    assert store.states() == ["pending", "pending"]
    assert all(row.uncertain for row in store.rows())


async def test_after_a_crash_what_was_being_sent_is_sent_again(store):
    store.add_synthetic("a", count=3)
    store.ledger.write(lambda connection: table.claim(connection, "a", now=time.time(), max_instances=2, max_bytes=1 << 20))
    assert store.states() == ["sending", "sending", "pending"]
    seen = []
    a = Scripted("a", lambda item: seen.append(item.uncertain) or Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0))
    async with running(store, a):
        await until(states_are(store, *["verified"] * 3), "all verified")
    assert seen == [True, True, False]


async def test_a_stuck_thread_is_abandoned_and_its_deliveries_are_put_back(store, monkeypatch):
    monkeypatch.setattr("gateway.delivery.lanes.lane.BREAK_OFF_S", 0.1)
    begun, release = threading.Event(), threading.Event()

    def deaf(item):
        begun.set()
        release.wait(PATIENCE_S)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    store.add_synthetic("a", count=2)
    try:
        async with running(store, Scripted("a", deaf)):
            await trio.to_thread.run_sync(begun.wait)
        assert [(row.state, bool(row.uncertain)) for row in store.rows()] == [("pending", True)] * 2
    finally:
        release.set()


async def test_a_fault_of_our_own_ends_one_lane_which_begins_again(store, monkeypatch):
    monkeypatch.setattr("gateway.delivery.dispatcher.LANE_PAUSE_S", 0.05)
    faults = iter([True])

    def changed(name):
        if name == "a" and next(faults, False):
            raise ZeroDivisionError

    store.add_synthetic("a", "b", count=2)
    async with running(store, Scripted("a", workers=2), Scripted("b"), changed=changed) as dispatcher:
        await until(states_are(store, "verified", "verified", to="b"), "the other one done")
        await until(states_are(store, "verified", "verified", to="a"), "the one that failed done")
        store.add_synthetic("a")
        dispatcher.nudge("a")
        await until(states_are(store, *["verified"] * 3, to="a"), "it goes on")


async def test_recording_one_batch_and_claiming_the_next_is_one_transaction(store, monkeypatch):
    monkeypatch.setattr("gateway.delivery.lanes.crew.RECORD_EVERY_S", 60.0)
    store.add_synthetic("a", count=3 * crew.MAX_BATCH_INSTANCES)
    commits = []

    def count(connection):
        commits.append(connection)

    event.listen(Engine, "commit", count)
    try:
        async with running(store, Scripted("a")):
            await until(states_are(store, *["verified"] * (3 * crew.MAX_BATCH_INSTANCES)), "all verified")
    finally:
        event.remove(Engine, "commit", count)
    assert len(commits) == len(["recover", "adapt", "claim", "record and claim", "record and claim", "record"])


async def test_what_was_answered_is_recorded_while_the_next_instance_takes_long(store, monkeypatch):
    monkeypatch.setattr("gateway.delivery.lanes.crew.RECORD_EVERY_S", 0.05)
    go_on = threading.Event()
    uids = store.add_synthetic("a", count=2)

    def answer(item):
        if item.identity.sop_instance_uid == uids[1]:
            assert go_on.wait(PATIENCE_S)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    async with running(store, Scripted("a", answer)):
        await until(states_are(store, "verified", "sending"), "the first one recorded")
        go_on.set()
        await until(states_are(store, "verified", "verified"), "both")


async def test_a_draining_dispatcher_that_never_ran_is_drained(store):
    assert await Dispatcher(store.ledger, []).drain(1)


async def test_folders_get_their_files(store, tmp_path):
    store.add_synthetic("folder", count=3)
    folder = Folder("folder", FolderDestination(kind="folder", path=tmp_path / "out", associations=2), store.spool)
    async with running(store, folder):
        await until(states_are(store, *["verified"] * 3), "written")
    assert {row.proof for row in store.rows()} == {"exists"}
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 3


async def test_a_ledger_that_fails_for_a_while_costs_time_and_no_outcome(store, monkeypatch):
    monkeypatch.setattr("gateway.delivery.lanes.crew.LEDGER_PAUSE_S", 0.02)
    real = table.apply
    failures = iter([True, True, False])

    def apply(connection, changes, *, now):
        if next(failures, False):
            connection.exec_driver_sql("SELECT * FROM no_such_table")
        return real(connection, changes, now=now)

    monkeypatch.setattr("gateway.ledger.deliveries.claiming.apply", apply)
    store.add_synthetic("a", count=2)
    a = Scripted("a")
    async with running(store, a):
        await until(states_are(store, "verified", "verified"), "recorded in the end")
    assert len(a.delivered) == 2


@pytest.mark.parametrize("workers", [1, 4])
async def test_an_endless_stream_of_nudges_is_no_busy_loop(store, workers):
    a = Scripted("a", workers=workers)
    async with running(store, a) as dispatcher:
        for _ in range(200):
            dispatcher.nudge()
            await trio.lowlevel.checkpoint()
        store.add_synthetic("a")
        dispatcher.nudge()
        await until(states_are(store, "verified"), "verified")


async def test_a_peer_of_one_association_at_a_time_waits_for_no_idle_one(store):
    store.add_synthetic("a", count=100)
    one = threading.Lock()
    a = Scripted("a", workers=2, idle_close_s=60)

    class Alone(ScriptedSession):
        inside = False

        def deliver(self, batch, report):
            self.inside = self.inside or one.acquire(timeout=PATIENCE_S / 2)
            super().deliver(batch, report)

        def close(self):
            if self.inside:
                one.release()
            self.inside = False

    a.open = lambda: Alone(a)
    async with running(store, a):
        await until(states_are(store, *["verified"] * 100), "all verified")


async def test_trickling_deliveries_are_batched_while_other_workers_are_busy(store, monkeypatch):
    monkeypatch.setattr(worker_state, "GATHER_S", 2.0)
    slow = store.add_synthetic("a", count=1)[0]
    go_on = threading.Event()

    def answer(item: Consignment) -> Outcome:
        if item.identity.sop_instance_uid == slow:
            assert go_on.wait(PATIENCE_S)
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    a = Scripted("a", answer=answer, workers=2)
    async with running(store, a) as dispatcher:
        await until(lambda: a.batches, "the first at work")
        for _ in range(8):
            store.add_synthetic("a")
            dispatcher.nudge("a")
        await until(lambda: len(a.delivered) == 8, "the others delivered")
        go_on.set()
        await until(states_are(store, *["verified"] * 9), "all verified")
    assert max(len(batch) for batch in a.batches) >= 3
    assert len(a.batches) < 9
