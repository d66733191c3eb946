"""Instances that were answered 0000 get into the ledger, whatever the ledger does meanwhile."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, text
from structlog.testing import capture_logs

from gateway.core import metrics
from gateway.core.domain import Purpose
from gateway.core.errors import LedgerUnavailable, Refusal
from gateway.intake import RecoveryReport, StorageIntake, recorder, recover
from gateway.ledger import Ledger
from gateway.ledger.database.schema import arrivals
from gateway.ledger.received import instances
from gateway.ledger.received.instances import ArrivalOutcome, Recorded
from gateway.spool import Spool
from tests.support.storing import ASSOCIATION, answer, data_set, kept, path_of, read, request, states, store, taking
from tests.support.waiting import PATIENCE_S, wait_until

UID = "1.2.3.4"


@pytest.fixture
def heard() -> list[list[Recorded]]:
    return []


@pytest.fixture
def intake(spool: Spool, ledger: Ledger, heard: list[list[Recorded]]) -> Iterator[StorageIntake]:
    with taking(spool, ledger, route=lambda _attributes: {"a": None}, recorded=lambda batch: heard.append(list(batch))) as opened:
        yield opened


@contextmanager
def busy(ledger: Ledger) -> Iterator[None]:
    """Keep the ledger's writer busy meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_connection: Connection) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    first = ledger.submit(wait)
    assert begun.wait(PATIENCE_S)
    try:
        yield
    finally:
        go_on.set()
        first.result(PATIENCE_S)


def found(ledger: Ledger, uid: str = UID) -> list[instances.StoredInstance]:
    with ledger.read() as connection:
        return instances.find(connection, uid)


def arrived(ledger: Ledger) -> list[tuple[str, str]]:
    with ledger.read() as connection:
        rows = connection.execute(select(arrivals.c.sop_instance_uid, arrivals.c.outcome).order_by(arrivals.c.id))
        return [(row.sop_instance_uid, row.outcome) for row in rows]


def restarted(spool: Spool, folder: Path) -> tuple[RecoveryReport, dict[tuple[int, str], str]]:
    with Ledger(folder.parent / "ledger.sqlite") as reopened:
        report = recover(spool, reopened, route=lambda _attributes: {"a": None})
        return report, states(reopened)


def uids(count: int) -> list[str]:
    return [f"{UID}.{number}" for number in range(1, count + 1)]


def test_the_answer_does_not_wait_for_the_ledger(intake: StorageIntake, ledger: Ledger) -> None:
    with busy(ledger):
        assert [answer(intake, request(uid), data_set(uid)) for uid in uids(20)] == [0] * 20
        assert arrived(ledger) == []
        with pytest.raises(LedgerUnavailable):
            intake.recorder.flush(0.05)
    intake.recorder.flush()
    assert arrived(ledger) == [(uid, "new") for uid in uids(20)]


def test_what_waits_is_recorded_together_and_told_once_it_is(
    intake: StorageIntake, ledger: Ledger, heard: list[list[Recorded]]
) -> None:
    with busy(ledger):
        for uid in uids(20):
            answer(intake, request(uid), data_set(uid))
        assert heard == []
    intake.recorder.flush()
    assert len(heard) <= 2, "the one at hand, and all that waited for it"
    assert [one.arrival.identity.sop_instance_uid for batch in heard for one in batch] == uids(20)


def test_metrics_count_what_came_by_its_outcome_and_what_waits(intake: StorageIntake) -> None:
    before, before_bytes = metrics.RECEIVED.series(), metrics.RECEIVED_BYTES.series()
    data = data_set(UID)
    assert [answer(intake, request(UID), data) for _ in range(3)] == [0] * 3
    intake.recorder.flush()
    came = {key: count - before.get(key, 0) for key, count in metrics.RECEIVED.series().items()}
    assert {key: count for key, count in came.items() if count} == {("new",): 1, ("duplicate",): 2}
    assert metrics.RECEIVED_BYTES.series()[()] - before_bytes[()] == 3 * len(data)
    wait_until(lambda: metrics.WAITING.series() == {(): 0}, "nothing waits")


def test_leaving_records_what_waits(spool: Spool, ledger: Ledger) -> None:
    with taking(spool, ledger, route=lambda _attributes: {"a": None}) as intake:
        for uid in uids(300):
            answer(intake, request(uid), data_set(uid))
    assert intake.recorder.waiting == 0
    assert len(states(ledger)) == 300


def test_instances_the_ledger_did_not_take_are_adopted_at_the_next_start(spool: Spool, ledger: Ledger, folder: Path) -> None:
    with taking(spool, ledger, route=lambda _attributes: {"a": None}) as intake:
        ledger.close()
        assert answer(intake, request(UID), data_set(UID)) == 0
    report, rows = restarted(spool, folder)
    assert report.adopted == 1
    assert list(rows.values()) == ["pending"]


@pytest.mark.parametrize(("name", "value"), [("MAX_WAITING", 3), ("MAX_AGE_S", 0.0)])
def test_no_more_is_taken_once_the_ledger_is_too_far_behind(
    intake: StorageIntake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(recorder, name, value)
    with busy(ledger):
        begun = intake.receive(ASSOCIATION, request("9.9"))
        begun.write([memoryview(data_set("9.9"))])
        for uid in uids(3 if name == "MAX_WAITING" else 1):
            answer(intake, request(uid), data_set(uid))
        wait_until(lambda: refused(intake), "a refusal")
        assert begun.commit() == 0, "what was begun before is kept"
    intake.recorder.flush()
    assert store(intake, request(UID), data_set(UID)) == 0


def refused(intake: StorageIntake) -> bool:
    """Tell whether an instance is refused for want of resources."""
    try:
        intake.receive(ASSOCIATION, request(UID)).discard()
    except Refusal as refusal:
        return refusal.status == 0xA700
    return False


def test_while_the_disk_is_full_everything_waits_and_the_log_says_so_once(
    intake: StorageIntake, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "RETRY_S", (0.01,))

    def limit(pages: int) -> Callable[[Connection], object]:
        return lambda connection: connection.execute(text(f"PRAGMA max_page_count={pages}")).scalar_one()

    def limited(raw: sqlite3.Connection, _record: object) -> None:
        raw.execute("PRAGMA max_page_count=1")

    # Of the connection that there is, and of any that takes its place after a failure.
    event.listen(ledger._writer_engine, "connect", limited)
    ledger.write(limit(1))
    with capture_logs() as logs:
        # All but the first are one batch then, for which there are not pages enough; of fewer, some would fit.
        with busy(ledger):
            for uid in uids(50):
                answer(intake, request(uid), data_set(uid, study=uid * 5))
        with pytest.raises(LedgerUnavailable):
            intake.recorder.flush(0.3)

        event.remove(ledger._writer_engine, "connect", limited)

        def room() -> bool:
            # It may share a transaction with the batch that fails.
            with suppress(LedgerUnavailable):
                ledger.write(limit(1_000_000))
                return True
            return False

        wait_until(room, "room in the ledger")
        intake.recorder.flush()
    assert sorted(uid for uid, _ in arrived(ledger)) == sorted(uids(50))
    assert [log["event"] for log in logs if log["log_level"] in {"error", "warning"}] == [
        "ledger_unavailable",
        "ledger_available_again",
    ]


def test_a_fault_of_one_arrival_takes_no_other_with_it(spool: Spool, ledger: Ledger, folder: Path) -> None:
    """One is counted to a retrieval that the ledger has forgotten: a constraint forbids its row, and its bytes stay."""
    with taking(
        spool,
        ledger,
        route=lambda _attributes: {"a": None},
        correlate=lambda _provenance, uid: Purpose(77) if uid == f"{UID}.2" else None,
    ) as intake:
        with capture_logs() as logs:
            with busy(ledger):
                for uid in uids(4):
                    answer(intake, request(uid), data_set(uid))
            intake.recorder.flush()
        assert [uid for uid, _ in arrived(ledger)] == [f"{UID}.1", f"{UID}.3", f"{UID}.4"]
        assert len(kept(folder)) == 4
        assert store(intake, request(UID), data_set(UID)) == 0
    assert [log["sop_instance_uid"] for log in logs if log["event"] == "arrival_left_for_next_start"] == [f"{UID}.2"]
    ledger.close()
    report, rows = restarted(spool, folder)
    assert report.adopted == 1
    assert len(rows) == 5


def test_the_same_content_many_times_in_one_batch_is_one_instance(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path
) -> None:
    with busy(ledger):
        for _ in range(5):
            answer(intake, request(UID), data_set(UID))
        assert len(kept(folder)) == 5, "bytes go only once it is sure that others are there"
    intake.recorder.flush()
    (instance,) = found(ledger)
    assert read(spool, instance.content) == data_set(UID)
    assert len(kept(folder)) == 1
    assert [outcome for _, outcome in arrived(ledger)] == ["new", *["duplicate"] * 4]


def test_other_content_within_one_batch_is_a_conflict_won_by_the_last(
    intake: StorageIntake, ledger: Ledger, heard: list[list[Recorded]]
) -> None:
    with busy(ledger):
        for filler in (b"one", b"two", b"three"):
            answer(intake, request(UID), data_set(UID, filler=filler))
    intake.recorder.flush()
    newest, *older = found(ledger)
    assert newest.superseded_by is None
    assert [instance.superseded_by is None for instance in older] == [False, False]
    assert [one.outcome for batch in heard for one in batch] == [ArrivalOutcome.NEW, *[ArrivalOutcome.CONFLICT] * 2]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 5)])
def test_duplicates_in_one_batch_restore_lost_bytes_once(
    intake: StorageIntake, spool: Spool, ledger: Ledger, folder: Path, damage: Callable[[Path], None]
) -> None:
    store(intake, request(UID), data_set(UID))
    gone = path_of(folder, found(ledger)[0].content)
    damage(gone)
    with busy(ledger):
        for _ in range(3):
            answer(intake, request(UID), data_set(UID))
    intake.recorder.flush()
    (instance,) = found(ledger)
    assert read(spool, instance.content) == data_set(UID)
    assert len(kept(folder)) == 1
    assert set(states(ledger).values()) == {"pending"}


def test_what_hears_of_a_batch_and_fails_stops_nothing(spool: Spool, ledger: Ledger) -> None:
    def fail(_batch: object) -> None:
        raise ZeroDivisionError

    with taking(spool, ledger, route=lambda _attributes: {"a": None}, recorded=fail) as intake:
        for uid in uids(3):
            store(intake, request(uid), data_set(uid))
    assert len(states(ledger)) == 3


def test_bytes_that_recovery_could_not_record_stay(spool: Spool, ledger: Ledger, folder: Path) -> None:
    with taking(spool, ledger, route=lambda _attributes: {"a": None}) as intake:
        ledger.close()
        answer(intake, request(UID), data_set(UID))
    with pytest.raises(LedgerUnavailable):
        recover(spool, ledger, route=lambda _attributes: {"a": None})
    assert len(kept(folder)) == 1
    assert restarted(spool, folder)[0] == RecoveryReport(adopted=1)
