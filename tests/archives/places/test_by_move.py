"""A place without C-GET gives files by C-MOVE where there is a way to ask it so, and says why where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.archives.places import Unheld
from gateway.archives.places.dicom import DicomPlace
from gateway.association.dimse.services import AssociationInfo, StorageService, StoreRequest
from gateway.association.scu.requestor import Deadlines, RemoteAE
from tests.support import data
from tests.support.pacs import Pacs
from tests.support.ports import HOST

CT, LITTLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


@dataclass
class Sends:
    """Answers each C-MOVE with an instance, or with why not."""

    why: str = ""
    asked: list[str] = field(default_factory=list)
    closed: int = 0

    def __call__(self, uids: tuple[str, str, str], storage: StorageService) -> str:
        self.asked.append(uids[2])
        if not self.why:
            came = storage.receive(AssociationInfo("a1", "A", "B", HOST), StoreRequest(1, CT, uids[2], LITTLE))
            came.write([memoryview(b"\x08\x00\x60\x00CS\x02\x00CT")])
            assert came.commit() == 0
        return self.why

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    paths = data.ct_series(tmp_path / "files", 2, rows=8, seed=1)
    with Pacs({}, [dcmread(path) for path in paths]).running() as one:
        yield one


def uids(dataset: Dataset) -> tuple[str, str, str]:
    return str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)


def place(pacs: Pacs, capture: Sends | None) -> DicomPlace:
    return DicomPlace("archive", RemoteAE("ARCHIVE", HOST, pacs.port), "GATEWAY", deadlines=Deadlines(), capture=capture)


def test_it_comes_by_move_and_c_get_is_tried_once(pacs: Pacs, tmp_path: Path) -> None:
    sends = Sends()
    with closing(place(pacs, sends)) as asked:
        for number, dataset in enumerate(pacs.datasets):
            asked.fetch(*uids(dataset), tmp_path / str(number))
    assert dcmread(tmp_path / "1").Modality == "CT"
    assert (sends.asked, sends.closed, len(pacs.finds)) == (pacs.uids(), 1, 1)


def test_why_it_did_not_come_either_way_is_said(pacs: Pacs, tmp_path: Path) -> None:
    with closing(place(pacs, Sends("the source stalled"))) as asked, pytest.raises(Unheld) as unheld:
        asked.fetch(*uids(pacs.datasets[0]), tmp_path / "a")
    assert str(unheld.value) == "it gives no instances by C-GET; by C-MOVE: the source stalled"


def test_without_a_way_to_ask_it_so_it_gives_none(pacs: Pacs, tmp_path: Path) -> None:
    with closing(place(pacs, None)) as asked, pytest.raises(Unheld, match=r"it gives no instances by C-GET$"):
        asked.fetch(*uids(pacs.datasets[0]), tmp_path / "a")


def test_what_is_not_listed_is_not_asked_for(pacs: Pacs, tmp_path: Path) -> None:
    sends = Sends()
    study, series, _ = uids(pacs.datasets[0])
    with closing(place(pacs, sends)) as asked, pytest.raises(Unheld, match="does not list it"):
        asked.fetch(study, series, "1.2.3", tmp_path / "a")
    assert sends.asked == []
