"""Listing the studies of a day at sources that cut their answers short, refuse, break off, and add what was not asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom.dataset import Dataset

from gateway.archives.lister import Evidence, Knowledge, Match
from gateway.archives.lister.memory import EVIDENCE_S
from gateway.config.settings import Settings
from gateway.core.errors import AssociationError, DimseFailed
from gateway.jobs.migrate import Listed
from gateway.jobs.migrate.listing import NO_UID, list_studies
from gateway.ledger import Ledger
from gateway.ledger.peers import learned
from gateway.retrieve import Retriever
from gateway.retrieve.recovery import Backoff
from tests.archives.lister.cutting import Cutting, Study
from tests.archives.lister.test_studies import studies
from tests.support import data
from tests.support.dcmtk import dcmqrscp
from tests.support.finding import ABORT, Finder
from tests.support.orthanc import orthanc
from tests.support.ports import HOST

DAY = {"StudyDate": "20240102"}
DEADLINE_S = 60.0
FE00, A700, C000 = 0xFE00, 0xA700, 0xC000


class Office:
    """A retriever on a ledger of its own, and the sources that it asks."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def listed(self, port: int, keys: dict[str, str] | None = None, **source: Any) -> Listed:
        """List the day, or what matches `keys`, at the source on `port`."""
        table = {"ae_title": "ARCHIVE", "host": HOST, "port": port, "response_timeout_s": 20.0, **source}
        settings = Settings.model_validate({"sources": {"archive": table}})
        retriever = Retriever(
            settings,
            self.ledger,
            tls=lambda _table: pytest.fail("no source here has TLS"),
            set_order=lambda _source, _order: None,
            barrier=lambda: None,
            storage=lambda: pytest.fail("nothing is retrieved here"),
            backoff=Backoff(first_s=0.01, max_s=0.02, tries=3),
        )
        with trio.fail_after(DEADLINE_S):
            return await list_studies(retriever, "archive", keys or DAY)

    def evidence(self, now: float = 0.0) -> Evidence | None:
        """The evidence about the source in the ledger at `now`."""
        with self.ledger.read() as connection:
            text = learned.get(connection, learned.source_subject("archive"), learned.MAX_RESULTS, now=now)
        return None if text is None else Knowledge.from_text(text).at("STUDY")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield Office(ledger)


@pytest.fixture
def start() -> Iterator[Any]:
    """A function that starts a source answering as a function says."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(Finder(answer).running())


def answering(source: Cutting, *, full: int = FE00) -> Any:
    """Answer as `source` does, with status `full` where it says that it has cut."""

    def answer(keys: dict[str, str]) -> tuple[Sequence[Dataset], int]:
        given = source.answer({keyword: value for keyword, value in keys.items() if keyword != "QueryRetrieveLevel"})
        return [_data_set(match) for match in given.matches], full if given.cut else 0

    return answer


def _data_set(match: Match) -> Dataset:
    answer = Dataset()
    for keyword, value in match.items():
        setattr(answer, keyword, value or None)
    answer.StudyDate = match["StudyDate"] or DAY["StudyDate"]
    return answer


def match_of(study: Study, day: str = DAY["StudyDate"]) -> Dataset:
    match = Dataset()
    match.StudyInstanceUID, match.NumberOfStudyRelatedInstances = study.study_instance_uid, study.instance_count
    match.StudyDate, match.StudyTime, match.PatientID, match.PatientName = day, study.time, study.patient_id, study.patient_name
    return match


def uids(listed: Listed) -> set[str]:
    return {uid for uid, _ in listed.studies}


def names(source: Cutting) -> set[str]:
    return {study.study_instance_uid for study in source.studies}


async def test_a_source_that_says_so_is_asked_in_parts_and_remembered(office: Office, start: Any) -> None:
    source = Cutting(studies(130), cap=50, says="cut")
    finder = start(answering(source))
    listed = await office.listed(finder.port)
    assert (uids(listed), listed.doubt) == (names(source), "")
    assert dict(listed.studies)["1.2.7"] == 1
    assert finder.associations == 1
    known = office.evidence()
    assert known is not None
    assert (known.cap, known.tells) == (50, True)
    assert office.evidence(now=time.time() + EVIDENCE_S - 60) == known
    assert office.evidence(now=time.time() + EVIDENCE_S + 60) is None


async def test_a_source_that_refuses_for_finding_too_much_is_asked_in_parts(office: Office, start: Any) -> None:
    source = Cutting(studies(60), cap=25, says="refuses")
    listed = await office.listed(start(answering(source, full=A700)).port)
    assert (uids(listed), listed.doubt) == (names(source), "")


async def test_a_source_that_says_nothing_is_found_out(office: Office, start: Any) -> None:
    source = Cutting(studies(60), cap=25)
    listed = await office.listed(start(answering(source)).port)
    assert (uids(listed), listed.doubt) == (names(source), "")


async def test_what_the_configuration_says_is_believed(office: Office, start: Any) -> None:
    finder = start(answering(Cutting(studies(40))))
    await office.listed(finder.port, max_results=41)
    assert len(finder.asked) == 1


async def test_a_second_day_knows_what_the_first_one_taught(office: Office, start: Any) -> None:
    await office.listed(start(answering(Cutting(studies(60)))).port)
    finder = start(answering(Cutting(studies(59))))
    await office.listed(finder.port)
    assert len(finder.asked) == 1


async def test_a_source_that_refuses_the_query_is_an_error(office: Office, start: Any) -> None:
    with pytest.raises(DimseFailed, match="C000"):
        await office.listed(start(lambda _keys: ((), C000)).port)


async def test_a_source_that_refuses_parts_is_doubted(office: Office, start: Any) -> None:
    many = [match_of(study) for study in studies(40)]
    finder = start(lambda keys: (many, 0) if keys.keys() <= {"StudyDate", "QueryRetrieveLevel"} else ((), C000))
    listed = await office.listed(finder.port)
    assert len(listed.studies) == 40
    assert "cannot be asked for them in parts" in listed.doubt


async def test_a_listing_carries_on_where_an_association_broke(office: Office, start: Any) -> None:
    source = Cutting(studies(60), cap=25)
    honest = answering(source)
    finder = start(lambda keys: (honest(keys)[0], ABORT) if len(finder.asked) == 3 else honest(keys))
    listed = await office.listed(finder.port)
    assert (uids(listed), listed.doubt) == (names(source), "")
    assert finder.associations == 2
    whole = [keys for keys in finder.asked if keys.keys() <= {"StudyDate", "QueryRetrieveLevel"}]
    assert sum("-" not in keys["StudyDate"] for keys in whole) == 1


async def test_a_source_that_is_out_of_reach_is_an_error(office: Office, start: Any) -> None:
    with pytest.raises(AssociationError):
        await office.listed(start(lambda _keys: ((), ABORT)).port)


async def test_studies_of_other_days_are_passed_over(office: Office, start: Any) -> None:
    mine, other = match_of(Study("1.2.1")), match_of(Study("1.2.2"), day="20231231")
    listed = await office.listed(start(lambda _keys: ((mine, other), 0)).port)
    assert uids(listed) == {"1.2.1"}


async def test_a_study_that_cannot_be_named_is_told_of(office: Office, start: Any) -> None:
    listed = await office.listed(start(lambda _keys: ((match_of(Study("1.2.*")), match_of(Study("1.2.1"))), 0)).port)
    assert (uids(listed), listed.doubt) == ({"1.2.1"}, NO_UID)


async def test_what_a_patient_has_is_asked_for_in_parts(office: Office, start: Any) -> None:
    held = [
        replace(study, date=f"2019{number % 12 + 1:02d}{number % 28 + 1:02d}", accession_number=f"A{number}")
        for number, study in enumerate(studies(60, patient_id="7"))
    ]
    listed = await office.listed(start(answering(Cutting(held, cap=25, says="cut"))).port, {"PatientID": "7"})
    assert (len(uids(listed)), listed.doubt) == (60, "")


def one_day(folder: Path, count: int) -> dict[str, Path]:
    """Write `count` studies of one day, a tenth of them without a time, a tenth at the same; returns study UID to file."""
    folder.mkdir()
    files = {}
    for study in studies(count):
        number = int(study.study_instance_uid.rpartition(".")[2])
        dataset = data.ct_dataset(seed=number, number=1, rows=8)
        dataset.StudyDate, dataset.PatientID = DAY["StudyDate"], study.patient_id
        dataset.StudyTime = {0: "", 1: "120000"}.get(number % 10, f"{study.time}.{number:03d}")
        files[str(dataset.StudyInstanceUID)] = folder / f"{number}.dcm"
        dataset.save_as(files[str(dataset.StudyInstanceUID)], enforce_file_format=True)
    return files


@pytest.mark.peers
@pytest.mark.parametrize("limit", [100, 350, 0])
async def test_orthanc_is_listed_whole_behind_its_limit(office: Office, tmp_path: Path, limit: int) -> None:
    files = one_day(tmp_path / "files", 350)
    with orthanc(tmp_path / "orthanc", LimitFindResults=limit) as source:
        source.upload(files.values())
        listed = await office.listed(source.port, ae_title=source.ae_title)
    assert (uids(listed), listed.doubt) == (files.keys(), "")


@pytest.mark.peers
async def test_orthanc_with_a_narrow_limit_is_listed_whole(office: Office, tmp_path: Path) -> None:
    files = one_day(tmp_path / "files", 60)
    with orthanc(tmp_path / "orthanc", LimitFindResults=10) as source:
        source.upload(files.values())
        listed = await office.listed(source.port, ae_title=source.ae_title)
    assert (uids(listed), listed.doubt) == (files.keys(), "")


@pytest.mark.peers
async def test_dcmqrscp_is_listed_whole(office: Office, tmp_path: Path) -> None:
    files = one_day(tmp_path / "files", 350)
    with dcmqrscp(tmp_path / "archive", hosts={}, files=list(files.values())) as source:
        listed = await office.listed(source.port, ae_title=source.ae_title)
    assert (uids(listed), listed.doubt) == (files.keys(), "")
