import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from structlog.testing import capture_logs

from gateway.core.domain import UID_RULE, Attributes, Basis, DeliveryState, Mode
from gateway.core.errors import Refusal
from gateway.intake import Releaser, StorageIntake, recover
from gateway.ledger import Ledger
from gateway.ledger.database import schema, transitions
from gateway.ledger.database.schema import arrivals, deliveries
from gateway.ledger.deliveries import commitments, queue
from gateway.ledger.jobs import retrievals
from gateway.ledger.received import instances
from gateway.ledger.received.instances import SUPERSEDED, ArrivalOutcome, BytesState, Recorded, StoredInstance
from gateway.spool import Spool
from tests.support import data as real
from tests.support.storing import (
    ASSOCIATION,
    data_set,
    element,
    kept,
    part10_files,
    path_of,
    read,
    request,
    states,
    store,
    store_once,
    taking,
)
from tests.support.waiting import PATIENCE_S

UID = "1.2.3.4"


def by_modality(attributes: Attributes) -> dict[str, Mode | None]:
    return {"a": None, "b": None} if attributes.get("Modality") == "CT" else {}


@pytest.fixture
def heard() -> list[Recorded]:
    return []


@pytest.fixture
def intake(spool: Spool, ledger: Ledger, heard: list[Recorded]) -> Iterator[StorageIntake]:
    with taking(spool, ledger, route=by_modality, keywords={"Modality"}, recorded=heard.extend, clock=lambda: 1000.0) as opened:
        yield opened


def found(ledger: Ledger, uid: str = UID) -> list[StoredInstance]:
    with ledger.read() as connection:
        return instances.find(connection, uid)


def outcomes(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(arrivals.c.outcome).order_by(arrivals.c.id)).scalars())


def settle(ledger: Ledger, *, to: DeliveryState = DeliveryState.VERIFIED) -> None:
    def change(connection: object) -> None:
        ids = list(connection.execute(select(deliveries.c.id)).scalars())  # type: ignore[attr-defined]
        for state in (DeliveryState.SENDING, DeliveryState.DELIVERED, to):
            transitions.move(connection, ids, state, now=1.0)  # type: ignore[arg-type]

    ledger.write(change)


def test_what_is_answered_0000_is_in_spool_and_ledger(
    intake: StorageIntake, spool: Spool, ledger: Ledger, heard: list[Recorded]
) -> None:
    data = data_set(UID)
    assert store(intake, request(UID), data) == 0x0000
    (instance,) = found(ledger)
    assert read(spool, instance.content) == data
    assert (instance.identity.study_instance_uid, instance.identity.series_instance_uid) == ("1.2.3", "1.2.3.1")
    assert (instance.provenance.calling_ae, instance.provenance.source) == ("ARCHIVE", "archive")
    assert states(ledger) == {(instance.id, "a"): "pending", (instance.id, "b"): "pending"}
    assert [(event.instance_id, event.outcome, event.queued) for event in heard] == [(instance.id, ArrivalOutcome.NEW, ("a", "b"))]


@pytest.mark.parametrize("size", [1, 7, 30, 100_000])
def test_routing_knows_the_same_in_fragments_of_any_size(intake: StorageIntake, ledger: Ledger, size: int) -> None:
    data = memoryview(data_set(UID))
    reception = intake.receive(ASSOCIATION, request(UID))
    for start in range(0, len(data), size):
        reception.write([data[start : start + size]])
    assert reception.commit() == 0
    intake.recorder.flush()
    (instance,) = found(ledger)
    assert instance.identity.series_instance_uid == "1.2.3.1"
    assert [destination for _, destination in states(ledger)] == ["a", "b"]


def test_an_instance_that_no_route_matches_is_kept_as_unrouted(intake: StorageIntake, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID, modality="MR"))
    assert states(ledger) == {}
    with ledger.read() as connection:
        assert [instance.identity.sop_instance_uid for instance in instances.unrouted(connection)] == [UID]


def test_a_sub_operation_is_counted_to_its_retrieval(spool: Spool, ledger: Ledger) -> None:
    asked: list[tuple[str | None, int | None, str]] = []

    def correlate(provenance: object, uid: str) -> None:
        asked.append((provenance.move_originator_ae, provenance.move_originator_message_id, uid))  # type: ignore[attr-defined]

    store_once(spool, ledger, request(UID), data_set(UID), route=by_modality, correlate=correlate)
    assert asked == [("GATEWAY", 7, UID)]


def test_private_sop_classes_are_taken(intake: StorageIntake, ledger: Ledger) -> None:
    assert store(intake, request(UID, sop_class="1.3.12.2.1107.5.9.1"), data_set(UID)) == 0
    assert found(ledger)[0].identity.sop_class_uid == "1.3.12.2.1107.5.9.1"


def test_a_discarded_reception_leaves_nothing(intake: StorageIntake, folder: Path, ledger: Ledger) -> None:
    reception = intake.receive(ASSOCIATION, request(UID))
    reception.write([memoryview(data_set(UID))])
    reception.discard()
    assert kept(folder) == []
    assert found(ledger) == []


UNREADABLE = {
    "junk": os.urandom(3000),
    "text": b"GET / HTTP/1.1\r\n\r\n" * 100,
    "cut": data_set(UID)[:61],
    "lying length": element(0x00080005, "CS", b"x")[:6] + b"\xff\xff" + b"short",
    "no study": element(0x00080018, "UI", UID.encode()),
    "unended sequence": b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000,
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_kept_all_the_same(intake: StorageIntake, spool: Spool, ledger: Ledger, kind: str) -> None:
    assert store(intake, request(UID), UNREADABLE[kind]) == 0
    (instance,) = found(ledger)
    assert read(spool, instance.content) == UNREADABLE[kind]


def test_a_data_set_without_bytes_is_refused_and_leaves_nothing(intake: StorageIntake, folder: Path, ledger: Ledger) -> None:
    for fragments in ([], [memoryview(b"")]):
        reception = intake.receive(ASSOCIATION, request(UID))
        if fragments:
            reception.write(fragments)
        with pytest.raises(Refusal) as refusal:
            reception.commit()
        assert refusal.value.status == 0xC000
    assert kept(folder) == []
    assert found(ledger) == []


def test_that_a_head_was_not_read_is_said_once_an_association(intake: StorageIntake) -> None:
    with capture_logs() as logs:
        for number in range(3):
            store(intake, request(f"{UID}.{number}"), UNREADABLE["cut"])
            store(intake, request(f"{UID}.{number}.1"), element(0x00080018, "UI", b"1.2.*"))
    said = [log["reason"] for log in logs if log["event"] == "head_not_read"]
    assert said == ["the data set ends within its header", f"SOP Instance UID with {UID_RULE}"]


ODD = {"sop": "1.2.abc", "study": "a study 1", "series": "1" * 80}


def test_odd_uids_are_carried_and_named_once_an_association(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    sent = [element(0x00080018, "UI", ODD["sop"].encode()), element(0x0020000D, "UI", ODD["study"].encode() + b" ")]
    data = b"".join([*sent, element(0x0020000E, "UI", ODD["series"].encode())])
    with capture_logs() as logs:
        for more in (b"", element(0x7FE00010, "OW", b"other")):
            assert store(intake, request(ODD["sop"]), data + more) == 0
    identity = found(ledger, ODD["sop"])[0].identity
    assert (identity.study_instance_uid, identity.series_instance_uid) == (ODD["study"], ODD["series"])
    assert spool.describe(found(ledger, ODD["sop"])[0].content.location).identity.sop_instance_uid == ODD["sop"]
    said = [log for log in logs if log["event"] == "uids_not_conforming"]
    assert [log["which"] for log in said] == ["SOP Instance UID, Study Instance UID, Series Instance UID"]
    assert "a study" not in repr(logs)


def test_what_stands_out_of_order_in_another_write_is_routed_by(intake: StorageIntake, ledger: Ledger) -> None:
    high = element(0x00280004, "CS", b"MONOCHROME2 ")
    reception = intake.receive(ASSOCIATION, request(UID))
    data = high + data_set(UID)
    for start in range(0, len(data), 50):
        reception.write([memoryview(data)[start : start + 50]])
    assert reception.commit() == 0
    intake.recorder.flush(10.0)
    assert found(ledger)[0].identity.study_instance_uid == "1.2.3"
    assert len(states(ledger)) == 2


def test_the_data_sets_uid_wins_over_the_commands_with_a_warning(intake: StorageIntake, ledger: Ledger) -> None:
    with capture_logs() as logs:
        store(intake, request(UID), data_set("9.9.9"))
    assert found(ledger) == []
    assert found(ledger, "9.9.9")
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["sop_instance_uid_mismatch"]


def test_the_commands_uid_stays_where_the_data_set_has_none(intake: StorageIntake, ledger: Ledger) -> None:
    store(intake, request(UID), data_set("no uid *"))
    assert found(ledger)


def test_no_patient_data_in_logs_or_ledger(intake: StorageIntake, folder: Path) -> None:
    with capture_logs() as logs:
        store(intake, request(UID), data_set(UID))
        store(intake, request(UID), data_set(UID, filler=b"other"))
    assert "Secret" not in repr(logs)
    assert all(b"Secret" not in path.read_bytes() for path in folder.parent.glob("ledger*"))


def test_real_files_arrive_with_equal_bytes(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    for path, syntax, data in part10_files(real.real_files()):
        study, series, uid, sop_class = real.identity(path)
        assert store(intake, request(uid, syntax=syntax, sop_class=sop_class), data) == 0
        (instance,) = found(ledger, uid)
        assert read(spool, instance.content) == data
        identity = instance.identity
        assert (identity.study_instance_uid, identity.series_instance_uid, identity.transfer_syntax_uid) == (study, series, syntax)


def broken_fsync(monkeypatch: pytest.MonkeyPatch, number: int = errno.EIO) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("gateway.spool.segments.writer.sync_data", fail)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_answered_a700_and_leaves_nothing(
    intake: StorageIntake, folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        broken_fsync(patch, number)
        reception = intake.receive(ASSOCIATION, request(UID))
        reception.write([memoryview(data_set(UID))])
        with pytest.raises(Refusal) as refusal:
            reception.commit()
    assert refusal.value.status == 0xA700
    assert kept(folder) == []
    assert found(ledger) == []
    assert store(intake, request(UID), data_set(UID)) == 0


def test_without_room_nothing_is_begun(folder: Path, ledger: Ledger) -> None:
    with (
        Spool(folder, reserve_bytes=2**62) as full,
        taking(full, ledger, route=by_modality) as intake,
        pytest.raises(Refusal) as refusal,
    ):
        intake.receive(ASSOCIATION, request(UID))
    assert refusal.value.status == 0xA700


def test_a_failing_route_leaves_nothing(spool: Spool, ledger: Ledger, folder: Path) -> None:
    def fail(_attributes: Attributes) -> tuple[str, ...]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store_once(spool, ledger, request(UID), data_set(UID), route=fail)
    assert kept(folder) == []


def test_the_same_content_again_is_one_instance(intake: StorageIntake, ledger: Ledger, folder: Path) -> None:
    for _ in range(3):
        assert store(intake, request(UID), data_set(UID)) == 0
    assert len(found(ledger)) == 1
    assert len(kept(folder)) == 1
    assert outcomes(ledger) == ["new", "duplicate", "duplicate"]


def test_the_same_content_follows_routes_that_are_new_since(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    store_once(spool, ledger, request(UID), data_set(UID), route=lambda _attributes: {"b": None, "c": None})
    assert sorted(destination for _, destination in states(ledger)) == ["a", "b", "c"]


def test_content_that_comes_again_after_its_release_is_delivered_again(
    intake: StorageIntake, spool: Spool, ledger: Ledger, heard: list[Recorded]
) -> None:
    store(intake, request(UID), data_set(UID))
    settle(ledger)
    assert Releaser(spool, ledger, history_s=1).run_once() == 1
    store(intake, request(UID), data_set(UID))
    (instance,) = found(ledger)
    assert instance.bytes_state is BytesState.KEPT
    assert read(spool, instance.content) == data_set(UID)
    assert set(states(ledger).values()) == {"pending"}
    assert heard[-1].bytes_needed


def test_of_two_contents_both_are_kept_and_the_newer_is_delivered(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    store(intake, request(UID), data_set(UID, filler=b"changed"))
    newer, older = found(ledger)
    assert older.superseded_by == newer.id
    assert newer.superseded_by is None
    assert read(spool, older.content) == data_set(UID)
    assert read(spool, newer.content) == data_set(UID, filler=b"changed")
    assert states(ledger) == {
        (older.id, "a"): "held",
        (older.id, "b"): "held",
        (newer.id, "a"): "pending",
        (newer.id, "b"): "pending",
    }
    assert outcomes(ledger) == ["new", "conflict"]


def test_the_bytes_of_superseded_content_stay_until_a_person_drops_it(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    store(intake, request(UID), data_set(UID, filler=b"changed"))
    settle(ledger)
    _, older = found(ledger)
    releaser = Releaser(spool, ledger, history_s=1)
    assert releaser.run_once() == 1
    assert read(spool, older.content) == data_set(UID)
    assert [instance.bytes_state for instance in found(ledger)] == [BytesState.RELEASED, BytesState.KEPT]
    held = queue.Selection(states=(DeliveryState.HELD,))
    assert ledger.write(lambda connection: queue.act(connection, held, queue.Action.RETRY, now=2.0)) == 0
    assert ledger.write(lambda connection: queue.act(connection, held, queue.Action.DROP, now=2.0)) == 2
    assert releaser.run_once() == 1
    assert spool.usage().instances == 0


def test_what_was_held_for_another_reason_says_that_it_is_superseded(intake: StorageIntake, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    ledger.write(lambda connection: queue.act(connection, queue.Selection(), queue.Action.HOLD, now=2.0))
    store(intake, request(UID), data_set(UID, filler=b"changed"))
    with ledger.read() as connection:
        held = queue.entries(connection, queue.Selection(states=(DeliveryState.HELD,)))
    assert {entry.reason for entry in held} == {SUPERSEDED}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 5)])
def test_a_duplicate_is_answered_0000_only_on_bytes_that_are_there(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path, damage: Callable[[Path], None]
) -> None:
    store(intake, request(UID), data_set(UID))
    damage(path_of(folder, found(ledger)[0].content))
    assert store(intake, request(UID), data_set(UID)) == 0
    (instance,) = found(ledger)
    assert read(spool, instance.content) == data_set(UID)
    assert set(states(ledger).values()) == {"pending"}


def test_bytes_that_come_again_let_every_destination_go_on(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    path_of(folder, found(ledger)[0].content).unlink()
    store_once(spool, ledger, request(UID), data_set(UID), route=lambda _attributes: {"a": None})
    assert {name: state for (_, name), state in states(ledger).items()} == {"a": "pending", "b": "pending"}


def test_an_instance_that_comes_again_is_pending_where_it_was_verified(intake: StorageIntake, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    with ledger.read() as connection:
        first = connection.execute(select(deliveries.c.id).where(deliveries.c.destination == "a")).scalar_one()
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.VERIFIED):
        ledger.write(lambda connection, state=state: transitions.move(connection, [first], state, now=1.0))
    store(intake, request(UID), data_set(UID))
    assert set(states(ledger).values()) == {"pending"}


@pytest.mark.parametrize("released", [True, False])
def test_what_comes_again_and_no_route_takes_any_more_is_kept_as_unrouted(
    intake: StorageIntake, spool: Spool, ledger: Ledger, released: bool
) -> None:
    store(intake, request(UID), data_set(UID))
    settle(ledger)
    releaser = Releaser(spool, ledger, history_s=1)
    if released:
        releaser.run_once()
    store_once(spool, ledger, request(UID), data_set(UID), route=lambda _attributes: {})
    releaser.run_once()
    (instance,) = found(ledger)
    assert read(spool, instance.content) == data_set(UID)
    with ledger.read() as connection:
        assert [waiting.id for waiting in instances.unrouted(connection)] == [instance.id]
    assert recover(spool, ledger, route=by_modality, keywords={"Modality"}).routed == 1
    assert set(states(ledger).values()) == {"pending"}
    with ledger.read() as connection:
        assert instances.unrouted(connection) == []


def test_the_same_uid_on_many_associations_at_once_is_decided_once(intake: StorageIntake, ledger: Ledger, folder: Path) -> None:
    contents = [data_set(UID), data_set(UID), data_set(UID, filler=b"changed")]
    failures: list[BaseException] = []
    start = threading.Barrier(12)

    def work(number: int) -> None:
        try:
            start.wait(PATIENCE_S)
            store(intake, request(UID), contents[number % 3])
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert failures == []
    rows = found(ledger)
    assert [row.superseded_by is None for row in rows] == [True] + [False] * (len(rows) - 1)
    assert all(first.content.digest != second.content.digest for first, second in itertools.pairwise(rows))
    assert len(kept(folder)) == len(rows)
    assert outcomes(ledger).count("new") == 1
    assert len(outcomes(ledger)) == 12


def test_bytes_go_only_once_every_delivery_is_settled(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    store(intake, request(UID), data_set(UID))
    releaser = Releaser(spool, ledger, history_s=100, clock=lambda: 1000.0)
    assert releaser.run_once() == 0
    with ledger.read() as connection:
        first, second = connection.execute(select(deliveries.c.id)).scalars()
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.VERIFIED):
        ledger.write(lambda connection, state=state: transitions.move(connection, [first], state, now=1.0))
    assert releaser.run_once() == 0
    ledger.write(lambda connection: transitions.move(connection, [second], DeliveryState.DROPPED, now=1.0))
    assert spool.usage().instances == 1
    assert releaser.run_once() == 1
    assert spool.usage().instances == 0
    assert found(ledger)[0].bytes_state is BytesState.RELEASED
    assert releaser.run_once() == 0


def test_an_unrouted_instance_is_never_released(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    store(intake, request(UID), data_set(UID, modality="MR"))
    assert Releaser(spool, ledger, history_s=1).run_once() == 0
    assert len(kept(folder)) == 1


def test_the_releaser_walks_past_a_backlog(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    for number in range(5):
        store(intake, request(f"1.2.{number}"), data_set(f"1.2.{number}"))
    last = found(ledger, "1.2.4")[0].id
    with ledger.read() as connection:
        ids = list(connection.execute(select(deliveries.c.id).where(deliveries.c.instance_id == last)).scalars())
    ledger.write(lambda connection: transitions.move(connection, ids, DeliveryState.DROPPED, now=1.0))
    releaser = Releaser(spool, ledger, history_s=1)
    assert [releaser.run_once(limit=2) for _ in range(3)] == [0, 0, 1]


def test_history_is_forgotten_after_its_time_only(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    settle(ledger)
    Releaser(spool, ledger, history_s=1).run_once()
    assert Releaser(spool, ledger, history_s=500, clock=lambda: 1400.0).forget_once() is False
    assert Releaser(spool, ledger, history_s=500, clock=lambda: 1600.0).forget_once() is True
    assert found(ledger) == []
    assert states(ledger) == {}


def test_what_came_since_a_running_migration_began_is_not_forgotten(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    settle(ledger)
    Releaser(spool, ledger, history_s=1).run_once()
    releaser = Releaser(spool, ledger, history_s=500, clock=lambda: 1e6)
    job = ledger.write(partial(retrievals.open_job, kind="migrate", fingerprint="f", criteria="{}", now=900.0))
    assert releaser.forget_once() is False
    assert len(found(ledger)) == 1
    ledger.write(partial(retrievals.set_job_state, job_id=job.id, state="done", now=1e6))
    assert releaser.forget_once() is True
    assert found(ledger) == []


def test_what_was_asked_of_peers_is_forgotten_too_but_for_what_still_runs(spool: Spool, ledger: Ledger) -> None:
    def fill(connection: Connection) -> list[int]:
        old, late, running = (
            retrievals.open_job(connection, "pull", name, "{}", now=10.0).id for name in ("old", "late", "running")
        )
        for job in (old, late, running):
            one = retrievals.open_retrieval(connection, job, "archive", "1.2", now=10.0)
            retrievals.expect(connection, one.id, basis=Basis.UIDS, expected_count=1, listed={"1.2.3": "1.2"})
        retrievals.set_job_state(connection, old, "stopped", now=20.0)
        retrievals.set_job_state(connection, late, "done", now=900.0)
        commitments.register(connection, "2.25.1", "a", [], now=10.0, deadline_at=20.0)
        commitments.register(connection, "2.25.2", "a", [], now=10.0, deadline_at=20.0)
        commitments.end(connection, "2.25.1", now=20.0)
        return [late, running]

    left = ledger.write(fill)
    releaser = Releaser(spool, ledger, history_s=100, clock=lambda: 950.0)
    assert releaser.forget_once() is True
    assert releaser.forget_once() is False
    with ledger.read() as connection:
        assert list(connection.execute(select(schema.jobs.c.id)).scalars()) == left
        assert len(connection.execute(select(schema.expected_instances)).all()) == 2
        assert list(connection.execute(select(schema.commitments.c.transaction_uid)).scalars()) == ["2.25.2"]


def test_what_is_owed_is_never_forgotten(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    assert Releaser(spool, ledger, history_s=0, clock=lambda: 1e9).forget_once() is False


@pytest.fixture
def unremovable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    with monkeypatch.context() as patch:

        def begin() -> None:
            def refuse(*_arguments: object, **_keywords: object) -> None:
                raise OSError(errno.EROFS, "Read-only file system")

            patch.setattr(os, "pwrite", refuse)

        yield begin


def test_a_duplicate_whose_bytes_cannot_be_removed_is_still_a_success(
    intake: StorageIntake, folder: Path, unremovable: Callable[[], None]
) -> None:
    store(intake, request(UID), data_set(UID))
    unremovable()
    assert store(intake, request(UID), data_set(UID)) == 0
    assert len(kept(folder)) == 2
