"""Two real servers compared: each thing that may differ is found, repaired, and then nothing differs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.support import data
from tests.support.dcmtk import dcmqrscp
from tests.support.gateway import Gateway, dicom_destination, folder_destination, source
from tests.support.orthanc import Orthanc, orthanc
from tests.support.ports import HOST, free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.peers("Orthanc")]

Found = set[tuple[str, str, str, str, tuple[str, ...]]]


@dataclass
class Pair:
    """Two Orthancs, A and B, each both source and destination; B lacks some and has some else."""

    a: Orthanc
    b: Orthanc
    gateway: Gateway
    files: list[list[Path]]

    def compare(self, *options: str | Path, same: bool = False) -> dict[str, Any]:
        """Compare A with B; the exit code must say whether they are the `same`."""
        summary: dict[str, Any] = self.gateway.json("compare", "pacs", "copy", *options, exit_codes=(0 if same else 1,))
        return summary


def differences(summary: dict[str, Any]) -> Found:
    keys = ("kind", "study", "series", "instance")
    return {(*(one[key] for key in keys), tuple(one["elements"])) for one in summary["differences"]}  # type: ignore[misc]


def uid(*numbers: int) -> str:
    return ".".join([data.UID_ROOT, *map(str, numbers)])


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    by_rest = getattr(request, "param", "by REST") == "by REST"
    files = [data.ct_series(tmp_path / f"study-{seed}", 3, rows=16, seed=seed) for seed in (1, 2, 3)]
    port = free_port()
    with ExitStack() as stack:

        def started(name: str) -> Orthanc:
            known = {"GATEWAY": (HOST, port)}
            return stack.enter_context(orthanc(tmp_path / name, ae_title=name, modalities=known, OverwriteInstances=True))

        a, b = started("A"), started("B")

        def rest(peer: Orthanc) -> dict[str, Any]:
            return {"rest": {"url": str(peer.rest.base_url)}} if by_rest else {}

        def as_source(peer: Orthanc) -> dict[str, Any]:
            return source(peer.port, ae_title=peer.ae_title, **rest(peer))

        def as_destination(peer: Orthanc) -> dict[str, Any]:
            return dicom_destination(peer.port, ae_title=peer.ae_title, quiet_s=0.5, **rest(peer))

        tables = {
            "sources": {"pacs": as_source(a), "copy": as_source(b)},
            "destinations": {"pacs": as_destination(a), "copy": as_destination(b)},
        }
        yield Pair(a, b, Gateway(tmp_path / "gateway", tables, port), files)


GET_READY_S = 10
"""A gateway starts, and a command reaches it, in less."""


def changed(path: Path, to: Path, change: Callable[[pydicom.FileDataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(to)
    return to


def flip_one_pixel(dataset: pydicom.FileDataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[10] ^= 1
    dataset.PixelData = bytes(pixels)


def comment(dataset: pydicom.FileDataset) -> None:
    dataset.PatientComments = "changed"


@pytest.mark.parametrize("pair", ["by REST", "by DICOM"], indirect=True)
def test_whatever_differs_is_found_and_repaired_and_then_nothing_differs(pair: Pair, tmp_path: Path) -> None:
    first, second, third = pair.files
    pair.a.upload([*first, *second, *third, *data.ct_series(tmp_path / "series", 2, rows=16, seed=2, series=2)])
    extra = data.ct_series(tmp_path / "extra", 1, rows=16, seed=4)
    pair.b.upload(
        [
            first[0],
            changed(first[1], tmp_path / "changed.dcm", comment),
            changed(first[2], tmp_path / "flipped.dcm", flip_one_pixel),
            *second[:2],
            *extra,
        ]
    )
    missing: Found = {
        ("only in A", uid(2, 1), uid(2, 1, 1), uid(2, 1, 1, 3), ()),
        ("only in A", uid(2, 1), uid(2, 1, 2), "", ()),
        ("only in A", uid(3, 1), "", "", ()),
    }
    more: Found = {("only in B", uid(4, 1), "", "", ())}
    content: Found = {
        ("content differs", uid(1, 1), uid(1, 1, 1), uid(1, 1, 1, 2), ("PatientComments",)),
        ("content differs", uid(1, 1), uid(1, 1, 1), uid(1, 1, 1, 3), ("pixels",)),
    }

    assert differences(pair.compare()) == missing | more
    assert differences(pair.compare("--content")) == missing | more | content
    assert differences(pair.compare("--ignore-missing-in", "A")) == missing
    assert differences(pair.compare("--ignore-missing-in", "B")) == more
    assert (
        differences(pair.compare("--level", "series"))
        == {
            ("counts differ", uid(2, 1), uid(2, 1, 1), "", ()),
            ("only in A", uid(2, 1), uid(2, 1, 2), "", ()),
            ("only in A", uid(3, 1), "", "", ()),
        }
        | more
    )
    assert (
        differences(pair.compare("--level", "study"))
        == {
            ("counts differ", uid(2, 1), "", "", ()),
            ("only in A", uid(3, 1), "", "", ()),
        }
        | more
    )

    both = pair.compare("--content", "--repair", "both")
    assert differences(both) == content, "what differs is overwritten in one direction only"
    report = tmp_path / "report.csv"
    repaired = pair.compare("--content", "--repair", "a-to-b", "--csv", report, same=True)
    assert [verdict["kind"] for verdict in repaired["repaired"]] == ["complete"]
    assert list(csv.reader(report.read_text().splitlines()))[1:] == []
    assert repaired["contents"] == 12
    assert pair.a.instances().keys() == pair.b.instances().keys()


def test_only_the_range_or_the_list_is_compared(pair: Pair, tmp_path: Path) -> None:
    first, second, _ = pair.files
    pair.a.upload([*first, *second])
    names = tmp_path / "list.csv"
    names.write_text(f"StudyInstanceUID\n{uid(1, 1)}\n")

    assert differences(pair.compare("--list", names)) == {("only in A", uid(1, 1), "", "", ())}
    assert len(differences(pair.compare("--from", "2024-02-28", "--to", "2024-03-01"))) == 2
    assert pair.compare("--from", "2024-03-01", "--to", "2024-03-02", same=True)["studies"] == 0
    assert pair.compare("--last", "2", same=True)["studies"] == 0
    assert len(differences(pair.compare("PatientID=TEST2"))) == 1


def test_a_study_under_another_date_at_one_side_is_not_missing_there(pair: Pair, tmp_path: Path) -> None:
    def another_day(dataset: pydicom.FileDataset) -> None:
        dataset.StudyDate = "20240301"

    (path,) = data.ct_series(tmp_path / "one", 1, rows=16, seed=9)
    pair.a.upload([path])
    pair.b.upload([changed(path, tmp_path / "moved.dcm", another_day)])

    found = pair.compare("--from", "2024-02-29", "--to", "2024-02-29", "--content")

    assert differences(found) == {("content differs", uid(9, 1), uid(9, 1, 1), uid(9, 1, 1, 1), ("StudyDate",))}


@pytest.mark.peers("dcmqrscp")
def test_an_archive_a_delivered_folder_and_a_folder_of_files_are_compared(tmp_path: Path) -> None:
    files = data.ct_series(tmp_path / "files", 4, rows=16, seed=1)
    gateway = Gateway(tmp_path / "gateway")
    with dcmqrscp(tmp_path / "archive", hosts={"GATEWAY": (HOST, gateway.port)}, files=files) as archive:
        destinations = {"folder": folder_destination(tmp_path / "delivered")}
        gateway.write(sources={"archive": source(archive.port)}, destinations=destinations)
        gateway.json("pull", "archive", "--study", uid(1, 1), "--to", "folder")

        delivered = gateway.json("compare", "archive", "folder", "--content")
        assert (delivered["same"], delivered["contents"]) == (True, 4)
        (tmp_path / "delivered" / uid(1, 1) / uid(1, 1, 1) / f"{uid(1, 1, 1, 2)}.dcm").unlink()
        lost = gateway.json("compare", "archive", "folder", exit_codes=(1,))
        assert differences(lost) == {("only in A", uid(1, 1), uid(1, 1, 1), uid(1, 1, 1, 2), ())}
        assert gateway.json("compare", "archive", "folder", "--repair", "a-to-b")["same"]
        changed(files[0], files[0], comment)
        files_differ = gateway.json("compare", "folder", tmp_path / "files", "--content", exit_codes=(1,))
        assert differences(files_differ) == {("content differs", uid(1, 1), uid(1, 1, 1), uid(1, 1, 1, 1), ("PatientComments",))}


def test_what_only_a_folder_has_is_taken_from_its_files_and_proved(pair: Pair, tmp_path: Path) -> None:
    first, second, third = pair.files
    folder, gateway = tmp_path / "folder", pair.gateway
    more = data.ct_series(folder / "series", 2, rows=16, seed=2, series=2)
    changed(first[1], folder / "changed.dcm", comment)
    changed(first[2], folder / "flipped.dcm", flip_one_pixel)
    for path in (first[0], *second, *third):
        (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    pair.b.upload([*first, *second[:2]])
    before = {path: path.read_bytes() for path in folder.rglob("*.dcm")}
    assert len(before) == 11

    added = gateway.json("compare", folder, "copy", "--repair", "a-to-b")
    verdicts = [(one["kind"], one["study_instance_uid"], one["received"], one["destination"]) for one in added["repaired"]]
    assert sorted(verdicts) == [
        ("complete", uid(2, 1), 1, "copy"),
        ("complete", uid(2, 1), 2, "copy"),
        ("complete", uid(3, 1), 3, "copy"),
    ]
    assert (added["same"], added["instances"], more[0].exists()) == (True, 11, True)
    assert set(pair.b.instances()) == {data.identity(path)[2] for path in before}
    assert {path: path.read_bytes() for path in folder.rglob("*.dcm")} == before

    content = gateway.json("compare", "copy", folder, "--content", exit_codes=(1,))
    assert [one["elements"] for one in content["differences"]] == [["PatientComments"], ["pixels"]]
    over = gateway.json("compare", "copy", folder, "--content", "--repair", "b-to-a")
    assert ([one["received"] for one in over["repaired"]], over["same"], over["contents"]) == ([2], True, 11)

    held = pair.b.instances()
    for one in held.values():
        pair.b.rest.delete(f"/instances/{one}").raise_for_status()
    again = gateway.json("compare", folder, "copy", "--repair", "a-to-b")
    assert (again["same"], len(pair.b.instances())) == (True, 11), "what was delivered and lost is delivered again"


def test_what_only_a_folder_that_we_deliver_into_has_is_sent_back(pair: Pair, tmp_path: Path) -> None:
    gateway, delivered = pair.gateway, tmp_path / "delivered"
    destinations = {**gateway.tables["destinations"], "folder": folder_destination(delivered)}
    gateway.write(destinations=destinations)
    pair.a.upload(pair.files[0])
    assert gateway.json("pull", "pacs", "--study", uid(1, 1), "--to", "folder")["done"]

    repaired = gateway.json("compare", "folder", "copy", "--repair", "a-to-b")

    assert ([one["kind"] for one in repaired["repaired"]], repaired["same"]) == (["complete"], True)
    assert pair.a.instances().keys() == pair.b.instances().keys()


def test_a_table_waits_for_its_time_of_day_and_a_command_for_its_hours(pair: Pair, tmp_path: Path) -> None:
    """Both at once, for a minute is the shortest time that either knows."""

    def today(dataset: pydicom.FileDataset) -> None:
        dataset.StudyDate = f"{datetime.now(UTC):%Y%m%d}"

    folder = tmp_path / "folder"
    folder.mkdir()
    for path in pair.files[1]:
        changed(path, folder / path.name, today)
    pair.a.upload(pair.files[0])
    due = (datetime.now(UTC) + timedelta(seconds=GET_READY_S)).replace(second=0, microsecond=0) + timedelta(minutes=1)
    at, last_days, from_folder = f"{due:%H:%M}", 3, {"a": folder, "b": "copy", "repair": "a-to-b"}
    pair.gateway.write(
        compare=[{"name": "night", "at": at, "time_zone": "UTC", "last_days": last_days, **from_folder}],
        schedule={"soon": {"time_zone": "UTC", "night": f"{at}-{due + timedelta(hours=6):%H:%M}"}},
    )
    report = pair.gateway.state / "reports" / "compare-night.json"

    with pair.gateway.serving():
        repaired = pair.compare("--when", "soon", "--repair", "a-to-b", "--ignore-missing-in", "A", same=True)
        assert datetime.now(UTC) >= due
        wait_until(report.exists, "the report of the comparison", deadline_s=110)
        written = json.loads(wait_until(report.read_text, "its text"))

    first, second = len(pair.files[0]), len(list(folder.iterdir()))
    assert [one["kind"] for one in repaired["repaired"]] == ["complete"]
    assert (written["differences"], written["instances"]) == ([], second)
    assert len(pair.b.instances()) == first + second


def test_what_cannot_be_meant_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", {"sources": {"pacs": source(1)}, "destinations": {"copy": dicom_destination(1)}})
    for arguments, message in (
        (("pacs", "pacs"), "the same place"),
        (("pacs", "nowhere"), "no source, destination or folder is called 'nowhere'"),
        (("pacs", "copy", "--repair", "b-to-a"), "copy is neither a source nor a folder"),
        (("pacs", tmp_path, "--repair", "both"), f"{tmp_path} is no destination"),
        (("pacs", "copy", "--level", "study", "--content"), "--level instance"),
        (("pacs", "copy", "--when", "nights"), "no schedule is called 'nights'"),
        (("pacs", "copy", "--from", "2024"), "--from: found '2024'"),
    ):
        done = gateway.run("compare", *arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
