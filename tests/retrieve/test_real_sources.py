"""Real archives as sources: dcmqrscp and Orthanc, honest and asynchronous, with real files of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.domain import VerdictKind
from gateway.ledger.peers import learned
from gateway.retrieve import JobEnded, StudyEnded
from tests.support import data
from tests.support.dcmtk import by_option, dcmqrscp
from tests.support.orthanc import orthanc
from tests.support.ports import HOST, free_port
from tests.support.retrieving import ours, studies_of

pytestmark = pytest.mark.peers


async def test_every_instance_that_dcmqrscp_lists_is_received(tmp_path: Path, real_files: tuple[Path, ...]) -> None:
    files = by_option(real_files)["-x="]
    listen = free_port()
    with (
        dcmqrscp(tmp_path / "archive", hosts={"GATEWAY": (HOST, listen)}, files=files) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        events = await here.pull(study_uids=studies_of(list(archive.files.values())))

    verdicts = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert [(one.study_instance_uid, one.kind, one.note) for one in verdicts if one.kind is not VerdictKind.COMPLETE] == []
    assert set(here.reception.arrived) == set(archive.files)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].all_complete


async def test_a_study_of_mixed_syntaxes_comes_whole_from_dcmqrscp(tmp_path: Path, ct_series: Callable[..., list[Path]]) -> None:
    files = [*ct_series(3, seed=31), *data.ct_series(tmp_path / "j2k", 3, seed=31, series=2, j2k=True)]
    listen = free_port()
    with (
        dcmqrscp(tmp_path / "archive", "-xv", hosts={"GATEWAY": (HOST, listen)}, files=files) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        events = await here.pull(study_uids=studies_of(files))

    assert events[-1] == JobEnded(1, complete=1)
    assert len(set(here.reception.arrived)) == 6


async def test_a_study_that_needs_the_other_order_is_learned_from_dcmqrscp(
    tmp_path: Path, ct_series: Callable[..., list[Path]]
) -> None:
    files = ct_series(3, seed=32)
    listen = free_port()
    with (
        dcmqrscp(tmp_path / "archive", "-xv", hosts={"GATEWAY": (HOST, listen)}, files=files) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        events = await here.pull(study_uids=studies_of(files))
        order = here.learned(learned.ACCEPTANCE_ORDER)

    assert events[-1] == JobEnded(1, complete=1)
    assert order == "uncompressed-first"


async def test_dcmqrscp_that_does_not_know_us_says_what_to_register(tmp_path: Path, ct_series: Callable[..., list[Path]]) -> None:
    listen = free_port()
    with (
        dcmqrscp(tmp_path / "archive", hosts={"OTHER": (HOST, listen)}, files=ct_series(3, seed=33)) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        events = await here.pull(patient_ids=("TEST33",))

    (verdict,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert (verdict.kind, len(verdict.missing)) == (VerdictKind.FAILED, 3)
    assert f"AE title GATEWAY, host 127.0.0.1, port {listen}" in verdict.note


@pytest.mark.parametrize("synchronous", [True, False])
async def test_every_instance_that_orthanc_lists_is_received(
    tmp_path: Path, real_files: tuple[Path, ...], ct_series: Callable[..., list[Path]], synchronous: bool
) -> None:
    listen = free_port()
    gateway = {"GATEWAY": (HOST, listen)}
    with (
        orthanc(tmp_path / "orthanc", modalities=gateway, SynchronousCMove=synchronous) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        held = archive.upload([*real_files, *ct_series(60, seed=34)])
        events = await here.pull(study_uids=tuple(archive.studies()))

    verdicts = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert [(one.study_instance_uid, one.kind, one.note) for one in verdicts if one.kind is not VerdictKind.COMPLETE] == []
    assert set(held) <= set(here.reception.arrived)
    assert isinstance(events[-1], JobEnded)
    assert events[-1].all_complete


async def test_orthanc_that_is_refused_an_instance_is_asked_for_it_again(
    tmp_path: Path, ct_series: Callable[..., list[Path]]
) -> None:
    listen = free_port()
    with (
        orthanc(tmp_path / "orthanc", modalities={"GATEWAY": (HOST, listen)}) as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        here.reception.refuse = lambda nth, _uid: 0xA700 if nth in {5, 9} else None
        archive.upload(ct_series(14, seed=35))
        events = await here.pull(accession_numbers=("ACC35",))

    assert events[-1] == JobEnded(1, complete=1)
    assert len(set(here.reception.arrived)) == 14


async def test_orthanc_that_does_not_know_us_is_failed_with_a_hint(tmp_path: Path, ct_series: Callable[..., list[Path]]) -> None:
    listen = free_port()
    with (
        orthanc(tmp_path / "orthanc") as archive,
        ours(tmp_path / "ours", ae_title=archive.ae_title, port=archive.port, listen=listen) as here,
    ):
        archive.upload(ct_series(3, seed=36))
        events = await here.pull(query={"PatientID": "TEST36"})

    (verdict,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert (verdict.kind, len(verdict.missing)) == (VerdictKind.FAILED, 3)
    assert f"AE title GATEWAY, host 127.0.0.1, port {listen}" in verdict.note
