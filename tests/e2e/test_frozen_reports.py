"""The report of a migration says what became of it then, whatever happens to the same instances later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.retrieve.conftest import study
from tests.support.gateway import Gateway, folder_destination, source
from tests.support.pacs import Pacs
from tests.support.ports import HOST, free_port

pytestmark = pytest.mark.slow

RANGE = ("--from", "2024-02-28", "--to", "2024-03-01")


def on_disk(folder: Path, datasets: list[Any]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


@pytest.mark.parametrize("named", [True, False], ids=["to a destination", "by routes"])
def test_a_report_stays_as_it_was_when_its_studies_are_sent_elsewhere(tmp_path: Path, named: bool) -> None:
    datasets = study()
    files = on_disk(tmp_path / "files", datasets)
    port = free_port()
    with Pacs({"GATEWAY": (HOST, port)}, datasets).running() as pacs:
        folders = {name: folder_destination(tmp_path / name) for name in ("one", "other")}
        routes = [] if named else [{"name": "all", "to": ["one"]}]
        tables = {"sources": {"archive": source(pacs.port, settle_s=0.2)}, "destinations": folders, "routes": routes}
        gateway = Gateway(tmp_path / "gateway", tables, port=port)
        where = ("--destination", "one") if named else ()

        first = gateway.json("migrate", "archive", *RANGE, *where)
        assert first["done"]
        assert list(first["studies"][0]["destinations"]) == ["one"]
        assert gateway.run("send", *files, "--to", "other").returncode == 0
        assert gateway.run("send", *files, "--to", "one").returncode == 0
        (tmp_path / "files" / "0.dcm").unlink()

        again = gateway.json("jobs", "report", str(first["job_id"]))
    assert again["studies"] == first["studies"]
    assert again["done"]
