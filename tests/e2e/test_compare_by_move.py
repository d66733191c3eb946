"""Archives that give instances by C-MOVE only, compared by what is in them: nothing of it is kept, delivered or left behind."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.support import data
from tests.support.dcmtk import dcmqrscp
from tests.support.gateway import Gateway, folder_destination, source
from tests.support.orthanc import orthanc
from tests.support.pacs import Order, Pacs, honest
from tests.support.ports import HOST
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow]


def uid(*numbers: int) -> str:
    return ".".join([data.UID_ROOT, *map(str, numbers)])


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """One whose routes lead everything into a folder."""
    return Gateway(tmp_path / "gateway", {"destinations": {"everything": folder_destination(tmp_path / "everything")}})


def two_of_five_changed(folder: Path) -> list[Path]:
    """Five files; in a copy of them below `folder`, one has a comment and one another pixel."""
    files = data.ct_series(folder / "archive", 5, rows=16, seed=1)
    (folder / "copy").mkdir()
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        if number == 1:
            dataset.PatientComments = "changed"
        if number == 3:
            dataset.PixelData = bytes([dataset.PixelData[0] ^ 1, *dataset.PixelData[1:]])
        dataset.save_as(folder / "copy" / path.name)
    return files


CHANGED = {(uid(1, 1, 1, 2), ("PatientComments",)), (uid(1, 1, 1, 4), ("pixels",))}


def changed(summary: dict[str, Any]) -> set[tuple[str, tuple[str, ...]]]:
    return {(one["instance"], tuple(one["elements"])) for one in summary["differences"]}


def nothing_is_kept(gateway: Gateway) -> bool:
    """Tell whether the ledger has no instance, the spool no bytes, and the folder for files that are compared is empty."""
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("instances", "deliveries", "arrivals")
        ]
    scratch = gateway.state / "comparing"
    left = list(scratch.iterdir()) if scratch.exists() else []
    return (counts, left) == ([0, 0, 0], [])


@pytest.mark.peers("dcmqrscp")
def test_an_archive_without_c_get_is_compared_element_by_element(gateway: Gateway, tmp_path: Path) -> None:
    files = two_of_five_changed(tmp_path)
    with dcmqrscp(tmp_path / "archive-of", "--disable-get", hosts={"GATEWAY": (HOST, gateway.port)}, files=files) as archive:
        gateway.write(sources={"archive": source(archive.port, settle_s=0.2)})

        nobody_listens = gateway.json("compare", "archive", tmp_path / "copy", "--content", exit_codes=(1,))
        assert {one["note"] for one in nobody_listens["differences"]} == {"it gives no instances by C-GET"}
        with gateway.serving():
            found = gateway.json("compare", "archive", tmp_path / "copy", "--content", exit_codes=(1,))
            assert nothing_is_kept(gateway)

    assert (changed(found), found["contents"]) == (CHANGED, 5), [one["note"] for one in found["differences"]]
    assert not (tmp_path / "everything").exists() or list((tmp_path / "everything").rglob("*.dcm")) == []


@pytest.mark.peers("Orthanc")
def test_an_orthanc_that_allows_no_c_get_is_compared_element_by_element(gateway: Gateway, tmp_path: Path) -> None:
    files = two_of_five_changed(tmp_path)
    us = {"gateway": {"AET": "GATEWAY", "Host": HOST, "Port": gateway.port, "AllowGet": False}}
    with orthanc(tmp_path / "orthanc", DicomModalities=us, DicomAlwaysAllowGet=False) as peer:
        peer.upload(files)
        gateway.write(sources={"archive": source(peer.port, ae_title=peer.ae_title, settle_s=0.2)})
        with gateway.serving():
            found = gateway.json("compare", "archive", tmp_path / "copy", "--content", exit_codes=(1,))
            assert nothing_is_kept(gateway)

    assert (changed(found), found["contents"]) == (CHANGED, 5), [one["note"] for one in found["differences"]]


def test_one_that_is_killed_in_the_middle_leaves_nothing_behind(gateway: Gateway, tmp_path: Path) -> None:
    files = two_of_five_changed(tmp_path)
    go_on = threading.Event()

    def held(order: Order) -> None:
        with order.sending() as send:
            assert send(order.selected[0]) == 0
        go_on.wait(60)
        order.abort()

    pacs = Pacs({"GATEWAY": (HOST, gateway.port)}, [pydicom.dcmread(path) for path in files], held)
    scratch = gateway.state / "comparing"
    command = gateway.command("compare", "archive", tmp_path / "copy", "--content", "--json")
    with pacs.running():
        gateway.write(sources={"archive": source(pacs.port, settle_s=0.2)})
        with gateway.serving() as serving, Running(command, cwd=gateway.folder) as comparing:
            wait_until(lambda: len(pacs.sent) == 1 and list(scratch.rglob("a")), "an instance that is captured")
            serving.kill()
            comparing.wait(30)
        go_on.set()
        assert [path.name for path in scratch.rglob("a")] == ["a"], "what SIGKILL leaves"

        pacs.script = honest
        with gateway.serving():
            assert nothing_is_kept(gateway)
            found = gateway.json("compare", "archive", tmp_path / "copy", "--content", exit_codes=(1,))
            assert nothing_is_kept(gateway)

    assert (changed(found), found["contents"]) == (CHANGED, 5), [one["note"] for one in found["differences"]]
