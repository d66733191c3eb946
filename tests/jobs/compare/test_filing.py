"""Repairs from a folder: the verdict says which instances are on their way, and why the rest is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.archives.places.folder import DeliveredFolder, FilesPlace
from gateway.core.domain import Provenance, VerdictKind
from gateway.core.errors import LedgerUnavailable
from gateway.core.schedule import Schedule, Span
from gateway.intake import FileOutcome, bring
from gateway.jobs import working_hours
from gateway.jobs.compare import filing as compare_filing
from gateway.jobs.compare.filing import Filing
from gateway.jobs.compare.hours import Hours
from gateway.jobs.compare.repair import Fetch
from gateway.jobs.working_hours import Window
from gateway.ledger import Ledger
from gateway.ledger.deliveries import progress
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.jobs import retrievals
from gateway.retrieve import JobSpec, Wanted
from gateway.spool import Spool
from tests.support import data
from tests.support.waiting import PATIENCE_S

STUDY, FIRST, SECOND = (f"{data.UID_ROOT}.{rest}" for rest in ("7.1", "7.1.1", "7.1.2"))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A study of two series, five instances, below one folder."""
    made = [
        *data.ct_series(tmp_path / "in" / "1", 3, rows=8, seed=7),
        *data.ct_series(tmp_path / "in" / "2", 2, rows=8, seed=7, series=2),
    ]
    return {data.identity(path)[2]: path for path in made}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def filing(tmp_path: Path, ledger: Ledger) -> Iterator[Filing]:
    with Spool(tmp_path / "spool", reserve_bytes=0) as spool:

        def take(some: Mapping[str, Path], destination: str, retrieval_id: int) -> Iterator[str]:
            for event in bring(some, destination, retrieval_id, spool, ledger, ae_title="GATEWAY"):
                yield "" if event.outcome is FileOutcome.QUEUED else event.reason

        yield Filing(ledger, take)


@pytest.fixture
def place(tmp_path: Path, files: dict[str, Path]) -> FilesPlace:
    return FilesPlace("files", tmp_path / "in")


@pytest.fixture
def other(tmp_path: Path) -> DeliveredFolder:
    return DeliveredFolder("copy", tmp_path / "copy")


def spec(number: int = 1) -> JobSpec:
    return JobSpec("compare", f"fingerprint {number}", json.dumps({}), ("copy",))


def queued(ledger: Ledger, job_id: int) -> int:
    with ledger.read() as connection:
        return sum(row.count for row in progress.count_states(connection, Scope(job_id=job_id, destinations=("copy",))))


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(STUDY), 5),
        (Wanted(STUDY, series=frozenset({SECOND})), 2),
        (Wanted(STUDY, instances=frozenset({f"{FIRST}.2", f"{SECOND}.1"})), 2),
    ],
)
async def test_a_study_or_a_part_of_it_is_on_its_way_and_the_verdict_says_so(
    filing: Filing, ledger: Ledger, place: FilesPlace, other: DeliveredFolder, wanted: Wanted, count: int
) -> None:
    job_id, (verdict,) = await filing.bring(place, other, spec(), [Fetch(wanted)], Hours())

    assert (verdict.kind, verdict.expected, verdict.received, verdict.missing) == (VerdictKind.COMPLETE, count, count, ())
    assert queued(ledger, job_id) == count
    with ledger.read() as connection:
        (recorded,) = retrievals.retrievals_of(connection, job_id)
        listed, _ = retrievals.expected(connection, recorded.id)
    assert (recorded.verdict, recorded.expected_count, len(listed)) == (VerdictKind.COMPLETE, count, count)


async def test_what_the_other_side_has_is_left_out_where_only_counts_differ(
    filing: Filing, ledger: Ledger, place: FilesPlace, other: DeliveredFolder, files: dict[str, Path], tmp_path: Path
) -> None:
    there = tmp_path / "copy" / STUDY / FIRST
    there.mkdir(parents=True)
    (there / f"{FIRST}.1.dcm").write_bytes(files[f"{FIRST}.1"].read_bytes())

    job_id, (verdict,) = await filing.bring(place, other, spec(), [Fetch(Wanted(STUDY), skip_existing=True)], Hours())

    assert (verdict.kind, verdict.skipped, verdict.received) == (VerdictKind.COMPLETE, 1, 4)
    assert queued(ledger, job_id) == 4


async def test_a_file_that_is_gone_is_missing_and_the_verdict_says_why(
    filing: Filing, ledger: Ledger, place: FilesPlace, other: DeliveredFolder, files: dict[str, Path]
) -> None:
    place.studies({})
    files[f"{FIRST}.2"].unlink()

    job_id, (verdict,) = await filing.bring(place, other, spec(), [Fetch(Wanted(STUDY))], Hours())

    assert (verdict.kind, verdict.received, verdict.missing) == (VerdictKind.INCOMPLETE, 4, (f"{FIRST}.2",))
    assert verdict.note == "1 of its files cannot be taken in: No such file or directory"
    assert queued(ledger, job_id) == 4


async def test_a_study_that_is_not_there_any_more_is_empty(filing: Filing, place: FilesPlace, other: DeliveredFolder) -> None:
    _, (verdict,) = await filing.bring(place, other, spec(), [Fetch(Wanted("1.2.3"))], Hours())
    assert (verdict.kind, verdict.expected) == (VerdictKind.EMPTY, 0)


async def test_what_is_broken_off_at_the_end_of_its_hours_is_carried_on(
    filing: Filing, ledger: Ledger, place: FilesPlace, other: DeliveredFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_hours, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(compare_filing, "AT_A_TIME", 1)
    night, looked, taken = [True], threading.Event(), list[str]()

    def clock() -> datetime:
        if not night[0]:
            looked.set()
        return datetime(2026, 11, 25, 22 if night[0] else 12, tzinfo=UTC)

    def until_morning(some: Mapping[str, Path], destination: str, retrieval_id: int) -> Iterator[str]:
        for uid, path in some.items():
            taken.append(uid)
            if len(taken) == 2:
                night[0] = False
                assert looked.wait(PATIENCE_S), "nobody looked whether the hours are over"
            yield from filing.take({uid: path}, destination, retrieval_id)

    async def evening() -> None:
        assert len(taken) < 5
        night[0] = True

    nights = Schedule.weekly(ZoneInfo("UTC"), [(day, Span(19 * 60, 30 * 60)) for day in range(7)])
    hours = Hours(Window(nights, clock=clock), evening)
    job_id, (verdict,) = await Filing(ledger, until_morning).bring(place, other, spec(), [Fetch(Wanted(STUDY))], hours)

    assert (verdict.kind, verdict.received, len(taken), len(set(taken))) == (VerdictKind.COMPLETE, 5, 5, 5)
    with ledger.read() as connection:
        assert len(retrievals.retrievals_of(connection, job_id)) == 1


async def test_nothing_that_comes_meanwhile_is_counted_to_a_folder(
    ledger: Ledger, place: FilesPlace, other: DeliveredFolder
) -> None:
    """An instance found without a row after a crash goes where the routes lead, not where a folder was to be brought."""
    purposes = []

    def broken(some: Mapping[str, Path], _destination: str, _retrieval_id: int) -> Iterator[str]:
        with ledger.read() as connection:
            purposes.extend(retrievals.purpose_of(connection, Provenance("A", "B", "", ""), uid) for uid in some)
        raise LedgerUnavailable("not now")
        yield ""

    with pytest.raises(LedgerUnavailable):
        await Filing(ledger, broken).bring(place, other, spec(), [Fetch(Wanted(STUDY))], Hours())
    assert purposes == [None] * 5
    with ledger.read() as connection:
        assert retrievals.purpose_of(connection, Provenance("A", "B", "", ""), f"{FIRST}.1") is None


async def test_what_was_delivered_and_lost_is_brought_again(
    filing: Filing, ledger: Ledger, place: FilesPlace, other: DeliveredFolder
) -> None:
    _, (first,) = await filing.bring(place, other, spec(1), [Fetch(Wanted(STUDY))], Hours())
    job_id, (again,) = await filing.bring(place, other, spec(2), [Fetch(Wanted(STUDY))], Hours())
    assert (first.kind, again.kind, again.received) == (VerdictKind.COMPLETE, VerdictKind.COMPLETE, 5)
    assert queued(ledger, job_id) == 5
