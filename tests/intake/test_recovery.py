import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from gateway.core.domain import Attributes, Basis, Content, Mode, Provenance
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.intake import RecoveryReport, Releaser, StorageIntake, recover
from gateway.intake.release import MOVE_AFTER_S
from gateway.ledger import Ledger
from gateway.ledger.database.schema import arrivals, deliveries
from gateway.ledger.jobs import retrievals
from gateway.ledger.received import instances
from gateway.ledger.received.instances import MISSING_REASON, BytesState, StoredInstance
from gateway.ledger.received.keeping import mark_released, relocate
from gateway.spool import Spool, SpoolEntry, layout
from tests.support.storing import (
    ASSOCIATION,
    damage,
    data_set,
    kept,
    part10_parts,
    path_of,
    put_aside,
    read,
    request,
    states,
    store,
    store_once,
    taking,
)

UID = "1.2.3.4"


def by_modality(attributes: Attributes) -> dict[str, Mode | None]:
    return {"a": None} if attributes.get("Modality") == "CT" and attributes.get("source") == "archive" else {}


@pytest.fixture
def intake(spool: Spool, ledger: Ledger) -> Iterator[StorageIntake]:
    with taking(spool, ledger, route=by_modality, keywords={"Modality"}) as opened:
        yield opened


def again(spool: Spool, ledger: Ledger) -> RecoveryReport:
    return recover(spool, ledger, route=by_modality, keywords={"Modality"})


def found(ledger: Ledger, uid: str = UID) -> list[StoredInstance]:
    with ledger.read() as connection:
        return instances.find(connection, uid)


def orphan(spool: Spool, folder: Path, data: bytes, *, uid: str = UID) -> Content:
    """Leave what a crash between the spool's commit and the ledger's leaves."""
    with Ledger(folder.parent / "other.sqlite") as other:
        store_once(spool, other, request(uid), data, route=by_modality)
        with other.read() as connection:
            return instances.find(connection, uid)[0].content


def test_nothing_to_do_after_a_clean_stop(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    assert again(spool, ledger) == RecoveryReport()
    assert states(ledger) == {(found(ledger)[0].id, "a"): "pending"}


def test_partial_files_and_what_was_never_committed_are_swept(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    intake.receive(ASSOCIATION, request(UID)).write([memoryview(data_set(UID))])
    (folder / layout.partial_path(layout.new_token())).write_bytes(data_set(UID))
    assert again(spool, ledger) == RecoveryReport(swept=1)
    assert kept(folder) == []


def test_an_unfinished_last_record_is_swept_for_nobody_was_told_of_it(spool: Spool, ledger: Ledger, folder: Path) -> None:
    orphan(spool, folder, data_set("1.2.5"), uid="1.2.5")
    damage(folder, orphan(spool, folder, data_set(UID)))
    assert again(spool, ledger) == RecoveryReport(swept=1, adopted=1)
    assert found(ledger) == []
    assert put_aside(folder) == []
    assert again(spool, ledger) == RecoveryReport()


def test_an_orphan_is_adopted_with_its_provenance_and_routed(spool: Spool, ledger: Ledger, folder: Path) -> None:
    content = orphan(spool, folder, data_set(UID))
    asked: list[Provenance] = []
    report = recover(
        spool,
        ledger,
        route=by_modality,
        keywords={"Modality"},
        correlate=lambda provenance, _uid: asked.append(provenance),
    )
    assert report == RecoveryReport(adopted=1)
    (instance,) = found(ledger)
    assert instance.content == content
    assert read(spool, content) == data_set(UID)
    assert (instance.provenance.calling_ae, instance.provenance.called_ae) == ("ARCHIVE", "GATEWAY")
    assert (instance.provenance.address, instance.provenance.association) == ("127.0.0.1", "a-1")
    assert (asked[0].move_originator_ae, asked[0].move_originator_message_id) == ("GATEWAY", 7)
    with ledger.read() as connection:
        row = connection.execute(select(arrivals)).one()
    assert (row.move_originator_ae, row.move_originator_message_id) == ("GATEWAY", 7)
    assert states(ledger) == {(instance.id, "a"): "pending"}
    assert again(spool, ledger) == RecoveryReport()


def test_an_orphan_of_what_is_there_already_is_no_second_instance(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    orphan(spool, folder, data_set(UID))
    assert again(spool, ledger).adopted == 1
    assert len(found(ledger)) == 1
    assert len(kept(folder)) == 1


def test_an_orphan_never_supersedes_content_recorded_after_it(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    content = orphan(spool, folder, data_set(UID))
    store(intake, request(UID), data_set(UID, filler=b"corrected"))
    assert again(spool, ledger).adopted == 1
    older, newer = found(ledger)
    assert (older.content, older.superseded_by, newer.superseded_by) == (content, newer.id, None)
    assert states(ledger) == {(newer.id, "a"): "pending", (older.id, "a"): "held"}


def test_one_file_that_cannot_be_read_does_not_stop_the_start(
    spool: Spool, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = orphan(spool, folder, data_set(UID))
    orphan(spool, folder, data_set("1.2.5"), uid="1.2.5")
    describe = Spool.describe

    def fail(self: Spool, location: str) -> SpoolEntry:
        if location == bad.location:
            raise SpoolIOError("Input/output error")
        return describe(self, location)

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "describe", fail)
        assert again(spool, ledger) == RecoveryReport(adopted=1, unreadable=1)
    assert again(spool, ledger) == RecoveryReport(adopted=1)


def test_an_orphan_of_an_interrupted_retrieval_counts_for_it(spool: Spool, ledger: Ledger, folder: Path) -> None:
    """Also without its C-MOVE's Message ID, which nobody knows any more: what it expects and came since it began is received."""

    def begin(connection: Connection) -> int:
        job = retrievals.open_job(connection, "pull", "f", "{}", now=1.0)
        one = retrievals.open_retrieval(connection, job.id, "archive", "1.2.3", now=1.0)
        retrievals.expect(connection, one.id, basis=Basis.UIDS, expected_count=1, listed={UID: "1.2.3.1"})
        return one.id

    one = ledger.write(begin)
    content = orphan(spool, folder, data_set(UID))
    assert again(spool, ledger).adopted == 1
    with ledger.read() as connection:
        assert retrievals.received(connection, one) == {UID: content.length}
        assert retrievals.lengths(retrievals.came_of_study(connection, one, "1.2.3")) == {UID: content.length}


def test_a_damaged_orphan_before_another_is_quarantined_as_a_plain_file(spool: Spool, ledger: Ledger, folder: Path) -> None:
    content = orphan(spool, folder, data_set(UID))
    orphan(spool, folder, data_set("1.2.5"), uid="1.2.5")
    damage(folder, content)
    assert again(spool, ledger) == RecoveryReport(adopted=1, corrupt=1)
    assert found(ledger) == []
    (path,) = put_aside(folder)
    assert path.read_bytes()[:132] == bytes(128) + b"DICM"
    assert part10_parts(path)[1][:-1] == data_set(UID)[:-1]
    assert again(spool, ledger) == RecoveryReport()


def test_a_damaged_head_costs_its_own_instance_only(spool: Spool, intake: StorageIntake, ledger: Ledger, folder: Path) -> None:
    uids = ["1.2.5", UID, "1.2.6"]
    for uid in uids:
        store(intake, request(uid), data_set(uid))
    content = found(ledger)[0].content
    with path_of(folder, content).open("r+b") as file:
        file.seek(content.offset - 100)
        file.write(b"?")
    assert again(spool, ledger) == RecoveryReport(corrupt=1, missing=1)
    assert [found(ledger, uid)[0].bytes_state for uid in uids] == [BytesState.KEPT, BytesState.MISSING, BytesState.KEPT]
    assert data_set(UID) in put_aside(folder)[0].read_bytes()
    assert read(spool, found(ledger, "1.2.6")[0].content) == data_set("1.2.6")
    assert again(spool, ledger) == RecoveryReport()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_damaged_file_of_its_own_is_quarantined(spool: Spool, ledger: Ledger, folder: Path, damaged: bool) -> None:
    content = orphan(spool, folder, data_set(UID))
    moved = spool.move_out(content.location)
    spool.remove(content.location)
    if damaged:
        damage(folder, moved)
    assert again(spool, ledger) == (RecoveryReport(corrupt=1) if damaged else RecoveryReport(adopted=1))
    assert len(put_aside(folder)) == damaged


@pytest.mark.parametrize("recorded", [False, True])
def test_one_of_two_copies_left_by_a_crash_while_moving_is_removed(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path, recorded: bool
) -> None:
    store(intake, request(UID), data_set(UID))
    (instance,) = found(ledger)
    ledger.write(lambda connection: connection.execute(deliveries.update().values(state="held")))
    copy = spool.move_out(instance.content.location)
    if recorded:
        assert ledger.write(lambda connection: relocate(connection, instance.id, instance.content.location, copy))
    assert len(kept(folder)) == 2
    assert again(spool, ledger) == RecoveryReport(removed=1)
    assert kept(folder) == [found(ledger)[0].content.location]
    assert read(spool, found(ledger)[0].content) == data_set(UID)
    assert states(ledger) == {(instance.id, "a"): "held"}


def test_an_older_copy_of_what_came_again_is_removed(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID))
    released(spool, ledger)
    store(intake, request(UID), data_set(UID))
    released(spool, ledger)
    assert again(spool, ledger) == RecoveryReport(removed=1)
    assert set(states(ledger).values()) == {"verified"}


def released(spool: Spool, ledger: Ledger) -> None:
    ledger.write(lambda connection: connection.execute(deliveries.update().values(state="verified")))
    assert Releaser(spool, ledger, history_s=1).run_once() == 1


def test_what_is_forgotten_does_not_come_back(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    store(intake, request(UID), data_set(UID))
    store(intake, request("1.2.5"), data_set("1.2.5"))
    kept_id = found(ledger, "1.2.5")[0].id
    mine = deliveries.c.instance_id != kept_id
    ledger.write(lambda connection: connection.execute(deliveries.update().where(mine).values(state="verified")))
    assert Releaser(spool, ledger, history_s=0).run_once() == 1
    assert len(kept(folder)) == 2
    assert Releaser(spool, ledger, history_s=0).forget_once()
    assert kept(folder) == [found(ledger, "1.2.5")[0].content.location]
    assert again(spool, ledger) == RecoveryReport()
    assert found(ledger) == []


def test_an_instance_held_for_long_is_moved_out_of_its_emptied_segment(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    for number in range(8):
        store(intake, request(f"1.2.{number}"), data_set(f"1.2.{number}"))
    spool.sweep()
    held, waits = found(ledger, "1.2.3")[0], found(ledger, "1.2.4")[0]
    for state, mine in (
        ("verified", deliveries.c.instance_id.not_in([held.id, waits.id])),
        ("held", deliveries.c.instance_id == held.id),
    ):
        ledger.write(
            lambda connection, state=state, mine=mine: connection.execute(deliveries.update().where(mine).values(state=state))
        )
    now = time.time()
    releaser = Releaser(spool, ledger, history_s=1e9, clock=lambda: now)
    assert releaser.run_once() == 6
    assert releaser.move_out_once() == 0
    now += 2 * MOVE_AFTER_S
    assert releaser.move_out_once() == 1
    moved = found(ledger, "1.2.3")[0].content
    assert moved.location == layout.twin_of(held.content.location)
    assert read(spool, moved) == data_set("1.2.3")
    assert part10_parts(path_of(folder, moved))[1] == data_set("1.2.3")
    assert found(ledger, "1.2.4")[0].content == waits.content
    assert spool.usage().instances == 2
    assert again(spool, ledger) == RecoveryReport()


def test_a_released_segment_is_reused_and_nothing_old_is_found_in_it(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    old = found(ledger)[0].content
    spool.sweep()
    released(spool, ledger)
    assert not path_of(folder, old).exists()
    with pytest.raises(SpoolMissing):
        spool.open(old)
    store(intake, request("1.2.5"), data_set("1.2.5"))
    assert kept(folder) == [found(ledger, "1.2.5")[0].content.location]
    assert again(spool, ledger) == RecoveryReport()


def test_a_row_without_its_file_is_missing_and_what_is_owed_of_it_held(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    path_of(folder, found(ledger)[0].content).unlink()
    assert again(spool, ledger) == RecoveryReport(missing=1)
    assert found(ledger)[0].bytes_state is BytesState.MISSING
    with ledger.read() as connection:
        row = connection.execute(select(deliveries)).one()
    assert (row.state, row.reason) == ("held", MISSING_REASON)
    assert again(spool, ledger) == RecoveryReport()


def test_missing_bytes_that_arrive_again_are_delivered(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    store(intake, request(UID), data_set(UID))
    path_of(folder, found(ledger)[0].content).unlink()
    again(spool, ledger)
    store(intake, request(UID), data_set(UID))
    (instance,) = found(ledger)
    assert instance.bytes_state is BytesState.KEPT
    assert read(spool, instance.content) == data_set(UID)
    assert states(ledger) == {(instance.id, "a"): "pending"}


def test_missing_bytes_that_are_put_back_are_kept_again(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    store(intake, request(UID), data_set(UID))
    path = path_of(folder, found(ledger)[0].content)
    whole = path.read_bytes()
    path.unlink()
    again(spool, ledger)
    path.write_bytes(whole)
    assert again(spool, ledger) == RecoveryReport(found_again=1)
    assert found(ledger)[0].bytes_state is BytesState.KEPT


@pytest.mark.parametrize("moved", [False, True])
def test_bytes_that_the_ledger_calls_released_are_let_go(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path, moved: bool
) -> None:
    store(intake, request(UID), data_set(UID))
    (instance,) = found(ledger)
    ledger.write(lambda connection: connection.execute(deliveries.update().values(state="verified")))
    if moved:
        copy = spool.move_out(instance.content.location)
        ledger.write(lambda connection: relocate(connection, instance.id, instance.content.location, copy))
        spool.remove(instance.content.location)
    ledger.write(lambda connection: mark_released(connection, [instance.id]))
    assert again(spool, ledger) == RecoveryReport(removed=int(moved))
    assert kept(folder) == []
    assert spool.usage().instances == 0


def test_unrouted_instances_are_routed_anew(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID, modality="MR"))
    store(intake, request("1.2.9"), data_set("1.2.9", modality="US"))
    report = recover(
        spool, ledger, route=lambda attributes: {"m": None} if attributes.get("Modality") == "MR" else {}, keywords={"Modality"}
    )
    assert report.routed == 1
    assert states(ledger) == {(found(ledger)[0].id, "m"): "pending"}
    assert not found(ledger, "1.2.9")[0].routed


def test_an_unrouted_instance_without_its_file_does_not_stop_the_start(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID, modality="MR"))
    os.truncate(path_of(folder, found(ledger)[0].content), 10)
    assert again(spool, ledger).routed == 0
