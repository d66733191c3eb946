import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from gateway.domain import Attributes, Basis, Content, Provenance
from gateway.errors import SpoolIOError
from gateway.intake import RecoveryReport, StorageIntake, recover
from gateway.ledger import Ledger, instances, retrievals
from gateway.ledger.instances import MISSING_REASON, BytesState, StoredInstance
from gateway.ledger.keeping import mark_released
from gateway.ledger.schema import arrivals, deliveries
from gateway.spool import Spool, SpoolEntry
from tests.support.storing import ASSOCIATION, data_set, files, path_of, read, request, states, store, store_once, taking

UID = "1.2.3.4"


def by_modality(attributes: Attributes) -> tuple[str, ...]:
    return ("a",) if attributes.get("Modality") == "CT" and attributes.get("source") == "archive" else ()


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


def test_partial_files_are_swept(intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path) -> None:
    intake.receive(ASSOCIATION, request(UID)).write([memoryview(data_set(UID))])
    assert again(spool, ledger).swept == 1
    assert files(folder) == []


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
    assert len(files(folder)) == 1


def test_an_orphan_never_supersedes_what_was_recorded_after_it_was_written(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    content = orphan(spool, folder, data_set(UID))
    os.utime(path_of(folder, content), (1.0, 1.0))
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
        assert retrievals.received_of_study(connection, one, "1.2.3") == {UID: content.length}


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_orphan_is_quarantined(spool: Spool, ledger: Ledger, folder: Path, damage: str) -> None:
    path = path_of(folder, orphan(spool, folder, data_set(UID)))
    if damage == "truncate":
        os.truncate(path, path.stat().st_size - 1)
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert again(spool, ledger) == RecoveryReport(corrupt=1)
    assert found(ledger) == []
    assert [file.parent.name for file in files(folder)] == ["corrupt"]


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


def test_a_file_that_the_ledger_calls_released_is_removed(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    store(intake, request(UID), data_set(UID))
    instance_id = found(ledger)[0].id
    ledger.write(lambda connection: connection.execute(deliveries.update().values(state="verified")))
    ledger.write(lambda connection: mark_released(connection, [instance_id]))
    assert again(spool, ledger) == RecoveryReport(removed=1)
    assert files(folder) == []


def test_unrouted_instances_are_routed_anew(intake: StorageIntake, spool: Spool, ledger: Ledger) -> None:
    store(intake, request(UID), data_set(UID, modality="MR"))
    store(intake, request("1.2.9"), data_set("1.2.9", modality="US"))
    report = recover(
        spool, ledger, route=lambda attributes: ("m",) if attributes.get("Modality") == "MR" else (), keywords={"Modality"}
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
