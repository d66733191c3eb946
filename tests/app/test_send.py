from __future__ import annotations

import csv
import signal
from pathlib import Path

import pydicom
import pytest

from tests.app.conftest import Run
from tests.support import gateway as support
from tests.support.gateway import Gateway
from tests.support.ports import free_port
from tests.support.processes import Running
from tests.support.waiting import wait_until


@pytest.fixture
def files(ct_series, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in ct_series(5):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def uids_in(folder: Path) -> list[str]:
    return sorted(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.rglob("*.dcm"))


def test_a_folder_arrives_verified_and_stays_as_it_is(run: Run, files: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in files.iterdir()}
    ended = run("send", files, "--to", "archive")
    assert ended.code == 0, ended.err
    assert "5/5 verified" in ended.out
    assert "everything delivered and verified" in ended.out
    assert uids_in(tmp_path / "archive") == uids_in(files)
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_the_same_command_again_sends_nothing_twice(run: Run, files: Path) -> None:
    run("send", files, "--to", "archive")
    again = run("send", files, "--to", "archive", "--json")
    assert again.code == 0
    assert again.document["counts"] == {"queued": 0, "settled": 5, "held": 0, "skipped": 0, "failed": 0}
    assert again.document["destinations"]["archive"]["states"] == {"verified": 5}


def test_a_file_that_is_no_dicom_is_reported_with_the_reason_and_is_no_failure(run: Run, files: Path, tmp_path: Path) -> None:
    (files / "notes.txt").write_text("hello")
    report = tmp_path / "report.csv"
    assert run("send", files, "--to", "archive", "--report", report).code == 0
    with report.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["path"], row["outcome"]) for row in rows] == [(str(files / "notes.txt"), "skipped")]
    assert rows[0]["reason"]


def test_of_two_files_with_one_uid_the_one_that_is_not_delivered_is_named(run: Run, files: Path) -> None:
    first, second, *others = sorted(files.iterdir())
    for path in others:
        path.unlink()
    changed = pydicom.dcmread(first)
    changed.InstanceNumber = 4711
    changed.save_as(second)
    ended = run("send", files, "--to", "archive", "--json")
    assert ended.code == 1
    assert [item["path"] for item in ended.document["undelivered"]] == [str(first)]
    assert "superseded" in ended.document["undelivered"][0]["reason"]


def test_a_report_that_cannot_be_written_is_noticed_before_anything_is_sent(run: Run, files: Path, tmp_path: Path) -> None:
    ended = run("send", files, "--to", "archive", "--report", tmp_path / "nowhere" / "report.csv")
    assert ended.code == 2
    assert not (tmp_path / "archive").exists()


def test_a_folder_without_any_instance_is_not_done(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run("send", tmp_path / "empty", "--to", "archive")
    assert ended.code == 1
    assert "no DICOM instance found" in ended.out


@pytest.mark.parametrize(("path", "to", "says"), [("nowhere", "archive", "no such file"), ("in", "nobody", "known: archive")])
def test_what_is_not_there_is_a_usage_error(run: Run, files: Path, tmp_path: Path, path: str, to: str, says: str) -> None:
    ended = run("send", tmp_path / path, "--to", to)
    assert ended.code == 2
    assert says in ended.err


def test_a_destination_that_is_down_is_waited_for_as_long_as_told_and_then_reported(site: Gateway, run: Run, files: Path) -> None:
    site.write(destinations={"down": support.dicom_destination(free_port())})
    ended = run("send", files, "--to", "down", "--wait-timeout", "1", "--json")
    assert ended.code == 1
    assert ended.document["done"] is False
    assert {item["path"] for item in ended.document["undelivered"]} == {str(path) for path in files.iterdir()}


def test_an_interrupted_send_exits_130_and_the_same_command_carries_on(
    site: Gateway, run: Run, files: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "archive"
    blocked.write_text("a file where the destination's folder has to be")
    with Running(site.command("send", files, "--to", "archive"), cwd=site.folder, stop_timeout_s=20) as sending:
        # Another command asks the gateway that the sending one runs inside itself.
        wait_until(lambda: run("queue", "list", "--json").document["total"] == 5, "five deliveries queued")
        sending.process.send_signal(signal.SIGINT)
        assert sending.process.wait(20) == 130, sending.output
    blocked.unlink()
    ended = run("send", files, "--to", "archive")
    assert ended.code == 0, ended.err
    assert uids_in(tmp_path / "archive") == uids_in(files)
