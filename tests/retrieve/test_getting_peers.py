"""Real archives asked by C-GET: dcmqrscp and Orthanc, with instances of many kinds, and found out to need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.core.domain import VerdictKind
from gateway.ledger.peers import learned
from gateway.retrieve import Event, JobEnded, StudyEnded
from tests.support import data
from tests.support.dcmtk import by_option, dcmqrscp
from tests.support.orthanc import orthanc
from tests.support.ports import free_port
from tests.support.retrieving import Ours, ours, studies_of

pytestmark = pytest.mark.peers

MakeSeries = Callable[..., list[Path]]


def shortfalls(events: Sequence[Event]) -> list[tuple[str, VerdictKind, str]]:
    verdicts = [event.verdict for event in events if isinstance(event, StudyEnded)]
    return [(one.study_instance_uid, one.kind, one.note) for one in verdicts if one.kind is not VerdictKind.COMPLETE]


def complete(here: Ours, events: Sequence[Event], uids: Sequence[str]) -> None:
    assert shortfalls(events) == []
    assert set(uids) <= set(here.reception.arrived)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].all_complete


async def test_every_instance_that_dcmqrscp_lists_comes_by_c_get(tmp_path: Path, real_files: tuple[Path, ...]) -> None:
    """It tells no SOP classes, so all of them are offered."""
    files = by_option(real_files)["-x="]
    with (
        dcmqrscp(tmp_path / "archive", hosts={}, files=files) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=free_port(), retrieve="get") as here,
    ):
        events = await here.pull(study_uids=studies_of(list(archive.files.values())))

    complete(here, events, list(archive.files))


async def test_compressed_and_uncompressed_instances_come_whole_from_dcmqrscp(tmp_path: Path, ct_series: MakeSeries) -> None:
    """It sends in the first context of a SOP class, whatever its transfer syntax: both orders are needed, and learned."""
    files = [*ct_series(3, seed=41), *data.ct_series(tmp_path / "j2k", 3, seed=41, series=2, j2k=True)]
    with (
        dcmqrscp(tmp_path / "archive", "+xv", hosts={}, files=files) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=free_port(), retrieve="get") as here,
    ):
        events = await here.pull(study_uids=studies_of(files))

        assert events[-1] == JobEnded(1, complete=1)
        assert len(set(here.reception.arrived)) == 6
        assert here.learned("both_orders") == "yes"


async def test_every_instance_that_orthanc_lists_comes_by_c_get(
    tmp_path: Path, real_files: tuple[Path, ...], ct_series: MakeSeries
) -> None:
    with (
        orthanc(tmp_path / "orthanc", DicomAlwaysAllowGet=True) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=free_port(), retrieve="get") as here,
    ):
        held = archive.upload([*real_files, *ct_series(60, seed=44)])
        events = await here.pull(study_uids=tuple(archive.studies()))

    complete(here, events, held)


@pytest.mark.parametrize("knows_get", [True, False])
async def test_orthanc_that_does_not_know_us_is_asked_by_c_get(tmp_path: Path, ct_series: MakeSeries, knows_get: bool) -> None:
    listen = free_port()
    with (
        orthanc(tmp_path / "orthanc", DicomAlwaysAllowGet=knows_get) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen, retrieve="auto") as here,
    ):
        archive.upload(ct_series(3, seed=46))
        events = await here.pull(query={"PatientID": "TEST46"})

        (verdict,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
        if knows_get:
            assert (verdict.kind, verdict.note) == (VerdictKind.COMPLETE, "")
            assert here.learned(learned.RETRIEVE) == "get"
        else:
            assert verdict.kind is VerdictKind.FAILED
            assert f"AE title GATEWAY, host 127.0.0.1, port {listen}" in verdict.note
            assert here.learned(learned.RETRIEVE) is None


async def test_dcmqrscp_that_does_not_know_us_is_asked_by_c_get_from_then_on(tmp_path: Path, ct_series: MakeSeries) -> None:
    listen = free_port()
    files = [*ct_series(3, seed=47), *ct_series(3, seed=48)]
    with dcmqrscp(tmp_path / "archive", hosts={}, files=files) as archive:
        for number, patient in enumerate(("TEST47", "TEST48"), 1):
            with ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen, retrieve="auto") as here:
                events = await here.pull(patient_ids=(patient,))
                assert events[-1] == JobEnded(number, complete=1)
                assert here.learned(learned.RETRIEVE) == "get"
        asked = str(archive.process.output).count("Received Move SCP")
    assert asked <= 1
