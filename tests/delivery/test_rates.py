"""A destination that has a rate is sent to, or written to, no faster: bytes and waits are counted, no time is measured."""

from __future__ import annotations

import os
import threading

import pytest

from gateway.archives.folder_identity import MARKER
from gateway.config.settings import FolderDestination, Settings
from gateway.core.domain import Consignment
from gateway.core.throttle import CATCH_UP_S, Throttle
from gateway.delivery import build
from gateway.delivery.adapters.dicom import CStore
from gateway.delivery.adapters.folder import Folder
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.delivery.dispatcher import Dispatcher
from tests.delivery.outcomes import Outcomes
from tests.delivery.scripted import Scripted, states_are
from tests.delivery.sites import dicom_settings
from tests.support import instances
from tests.support.archive import Archive
from tests.support.throttles import Counting
from tests.support.waiting import PATIENCE_S, until, wait_until

DAY_S = 86_400.0
MB = 1_000_000


def consign(store, number, data):
    identity = instances.synthetic(number)
    return Consignment(number, number, "a", identity, store.keep(identity, data), attempts=0)


def folder(store, root, throttle):
    return Folder("a", FolderDestination(kind="folder", path=root), store.spool, throttle=throttle)


def test_the_sessions_of_a_storage_scp_share_its_rate(store):
    throttle, archive = Counting(MB), Archive()
    with archive.running():
        destination = CStore("a", dicom_settings(archive.port), "GATEWAY", store.spool, throttle=throttle)
        for number in range(3):
            session, outcomes = destination.open(), Outcomes()
            session.deliver([consign(store, number, os.urandom(MB))], outcomes)
            session.close()
            assert [outcome.status for outcome in outcomes] == [0]
    sent = sum(throttle.taken)
    assert 3 * MB <= sent <= 3.03 * MB
    assert 3 - 2 * CATCH_UP_S <= throttle.asked_s <= sent / MB


def test_a_folder_is_written_to_as_fast_as_its_rate_says(store, tmp_path):
    throttle, data = Counting(MB), os.urandom(2 * MB)
    outcomes = Outcomes()
    folder(store, tmp_path / "archive", throttle).open().deliver([consign(store, 1, data)], outcomes)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.STORED]
    assert sum(throttle.taken) == len(data)
    assert max(throttle.taken) <= throttle.piece_bytes
    assert 2 - 2 * CATCH_UP_S - 0.01 <= throttle.asked_s <= 2


def test_what_a_folder_has_already_costs_nothing_of_its_rate(store, tmp_path):
    throttle, item = Counting(MB), consign(store, 1, os.urandom(MB))
    session = folder(store, tmp_path / "archive", throttle).open()
    session.deliver([item], Outcomes())
    taken = len(throttle.taken)
    session.deliver([item], Outcomes())
    assert len(throttle.taken) == taken


def test_killing_ends_a_throttled_write_and_leaves_no_part_of_the_file(store, tmp_path):
    throttle, root = Counting(MB, real_s=lambda asked_s: DAY_S if asked_s else 0.0), tmp_path / "archive"
    session, outcomes = folder(store, root, throttle).open(), Outcomes()
    thread = threading.Thread(target=session.deliver, args=([consign(store, 1, os.urandom(2 * MB))], outcomes))
    thread.start()
    wait_until(lambda: throttle.asked_s, "a wait")
    session.kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert outcomes == []
    assert [path for path in root.rglob("*") if path.is_file() and path.name != MARKER] == []


async def test_a_throttled_delivery_stays_pending_without_an_attempt_at_a_stop(store, tmp_path, nursery):
    throttle = Counting(MB, real_s=lambda asked_s: DAY_S if asked_s else 0.0)
    store.add_synthetic("a", size=2 * MB)
    dispatcher = Dispatcher(store.ledger, [folder(store, tmp_path / "archive", throttle)])
    await nursery.start(dispatcher.run)
    await until(lambda: throttle.asked_s, "a wait")
    assert not await dispatcher.drain(0.05)
    assert [(row.state, row.attempts) for row in store.rows()] == [("pending", 0)]


async def test_a_throttled_destination_gets_small_batches(store, nursery):
    throttle = Throttle(10_000.0)

    def answer(item: Consignment) -> Outcome:
        return Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)

    slow, quick = Scripted("slow", answer, throttle=throttle), Scripted("quick", answer)
    store.add_synthetic("slow", "quick", count=20, size=throttle.piece_bytes)
    await nursery.start(Dispatcher(store.ledger, [slow, quick]).run)
    await until(states_are(store, *["verified"] * 40), "all verified")
    assert [len(batch) for batch in quick.batches] == [20]
    assert max(len(batch) for batch in slow.batches) <= 8
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["dicom", "folder"])
def test_the_configuration_says_rate_and_hours(store, tmp_path, kind):
    where = {"path": tmp_path} if kind == "folder" else {"ae_title": "A", "host": "127.0.0.1", "port": 104}
    settings = Settings.model_validate(
        {
            "destinations": {"a": {"kind": kind, "max_rate": "2 MB/s", "when": "night"} | where, "b": {"kind": kind} | where},
            "schedule": {"night": {"time_zone": "UTC", "night": "19-6"}},
        }
    )
    limited, free = build.destinations(settings, store.spool)
    assert limited.throttle is not None
    assert limited.throttle.piece_bytes == 500_000
    assert limited.hours == settings.hours("night")
    assert (free.throttle, free.hours) == (None, None)
