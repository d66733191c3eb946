"""Archives that give one match, or ten, to every query: everything is moved, or the exit code says that it may not be all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from gateway.core.errors import DimseFailed
from tests.archives.lister.scripted import Archive, Image
from tests.support import data
from tests.support.gateway import Gateway, deliveries, folder_destination, source
from tests.support.pacs import Pacs
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STUDIES = 12


@dataclass
class Capped(Pacs):
    """A PACS whose C-FIND is answered as a scripted archive does."""

    how: dict[str, Any] = field(default_factory=dict)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        archive = Archive([_image(dataset) for dataset in self.datasets], **self.how)
        try:
            for match in archive.find(event.identifier):
                match.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
                yield 0xFF00, match
        except DimseFailed as error:
            yield error.status, None


def _image(dataset: Dataset) -> Image:
    return Image(
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPInstanceUID),
        number=int(dataset.InstanceNumber),
        series_number=1,
        date=dataset.StudyDate,
        time=dataset.StudyTime,
        patient_id=dataset.PatientID,
        accession=dataset.AccessionNumber,
    )


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    """Studies of three days, of one patient, some of them close together, with one to three instances."""
    found = []
    for seed in range(1, STUDIES + 1):
        for number in range(1, seed % 3 + 2):
            dataset = data.ct_dataset(seed=seed, number=number, rows=8)
            dataset.StudyDate, dataset.StudyTime = f"2024010{seed % 3 + 1}", f"{8 + seed // 3:02d}15{seed:02d}"
            dataset.PatientID, dataset.AccessionNumber = "P1", f"A{seed}"
            found.append(dataset)
    return found


HOW: dict[str, dict[str, Any]] = {
    "one match, silently": {"caps": dict.fromkeys(("STUDY", "SERIES", "IMAGE"), 1)},
    "one match, without counts": {"caps": dict.fromkeys(("STUDY", "SERIES", "IMAGE"), 1), "counts": False},
    "ten matches, FE00": {"caps": dict.fromkeys(("STUDY", "SERIES", "IMAGE"), 10), "says": 0xFE00},
}
COMMANDS: dict[str, Sequence[str]] = {
    "sync": ("sync", "pacs", "--once", "--day", "2024-01-01..2024-01-31", "--to", "files"),
    "pull": ("pull", "pacs", "--patient", "P1"),
    "migrate": ("migrate", "pacs", "--from", "2024-01-01", "--to", "2024-01-03", "--destination", "files"),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("command", COMMANDS)
def test_all_of_it_is_moved_or_the_exit_code_tells(tmp_path: Path, datasets: list[Dataset], how: str, command: str) -> None:
    port = free_port()
    with Capped({"GATEWAY": ("127.0.0.1", port)}, datasets, how=HOW[how]).running() as pacs:
        tables = {
            "sources": {"pacs": source(pacs.port, settle_s=0.2, progress_timeout_s=5.0)},
            "destinations": {"files": folder_destination(tmp_path / "files")},
            "routes": [{"name": "all", "to": ["files"]}],
        }
        gateway = Gateway(tmp_path / "gateway", tables, port=port)
        done = gateway.run(*COMMANDS[command], deadline_s=300.0)
        print(done.stdout[-2000:], done.stderr[-2000:], len(pacs.orders))
        came = {one.uid for one in deliveries(gateway) if one.state == "verified"}
    assert came == {str(dataset.SOPInstanceUID) for dataset in datasets}
    assert done.returncode == (0 if how == "ten matches, FE00" and command != "pull" else done.returncode)
    assert done.returncode in {0, 1}
