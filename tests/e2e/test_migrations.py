"""Migrations between real servers: a source that cuts its answers short, and one that is deleted from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gateway.jobs.migrate.deleting import NOT_PROVED
from tests.support import data
from tests.support.dcmtk import storescp
from tests.support.gateway import Gateway, dicom_destination, source
from tests.support.orthanc import orthanc
from tests.support.ports import HOST

pytestmark = pytest.mark.slow

DAY = ("--from", "2024-02-29", "--to", "2024-02-29")
MANY, CAP = 350, 100


def on_one_day(folder: Path, count: int) -> list[Path]:
    """Studies of one instance each on one day: at different times, a few dozen at the same one, and some at none that is known."""
    folder.mkdir()
    files = []
    for study in range(count):
        dataset = data.ct_dataset(seed=7000 + study, number=1, rows=8)
        seconds = study * 61 % 86_400 if study >= 60 else 36_000
        dataset.StudyTime = "" if study % 50 == 7 else f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
        files.append(folder / f"{study}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


@pytest.mark.peers("Orthanc")
def test_a_day_with_more_studies_than_the_find_limit_is_migrated_whole(tmp_path: Path) -> None:
    files = on_one_day(tmp_path / "files", MANY)
    with orthanc(tmp_path / "destination") as destination:
        to = dicom_destination(destination.port, ae_title="ORTHANC", verify="status")
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"orthanc": to}})
        known = {"GATEWAY": (HOST, gateway.port)}
        with orthanc(tmp_path / "source", ae_title="ARCHIVE", modalities=known, LimitFindResults=CAP) as archive:
            archive.upload(files)
            gateway.write(sources={"archive": source(archive.port, moves=4)})
            assert "FE00" in gateway.run("find", "archive", "StudyDate=20240229").stderr, "the source cuts its answer short"
            summary = gateway.json("migrate", "archive", *DAY, deadline_s=300)
        assert len(destination.studies()) == MANY
    assert (len(summary["studies"]), summary["doubts"], summary["done"]) == (MANY, {}, True)


@pytest.mark.peers("Orthanc", "storescp")
def test_only_instances_proved_at_the_destination_are_deleted(tmp_path: Path) -> None:
    """A storescp answers success and cannot be asked: that proves nothing, and nothing is deleted for it."""
    studies = [data.ct_series(tmp_path / f"study-{seed}", 4, seed=seed) for seed in (1, 2, 3)]
    with orthanc(tmp_path / "destination") as destination, storescp(tmp_path / "plain", ae_title="PLAIN") as plain:
        tables = {
            "orthanc": dicom_destination(destination.port, ae_title="ORTHANC", quiet_s=0.5),
            "plain": dicom_destination(plain.port, ae_title="PLAIN", quiet_s=0.5),
        }
        gateway = Gateway(tmp_path / "gateway", {"destinations": tables})
        known = {"GATEWAY": (HOST, gateway.port)}
        with orthanc(tmp_path / "source", ae_title="ARCHIVE", modalities=known) as archive:
            archive.upload(path for files in studies for path in files)
            gateway.write(sources={"archive": source(archive.port, rest={"url": str(archive.rest.base_url)})})

            refused = gateway.json("migrate", "archive", *DAY, "--delete-from-source", "--destination", "plain", exit_codes=(1,))
            assert (len(archive.studies()), len(plain.received())) == (3, 12)
            assert {row["kept"] for row in refused["studies"]} == {NOT_PROVED}

            report = tmp_path / "report.csv"
            arguments = (*DAY, "--delete-from-source", "--destination", "orthanc", "--report", report)
            done = gateway.run("migrate", "archive", *arguments)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            assert (archive.studies(), len(destination.instances())) == ([], 12)
    rows = list(csv.DictReader(report.read_text().splitlines()))
    assert len(rows) == 3
    assert all(row["deleted"] for row in rows)
