"""The abilities of sources and destinations, kind by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import DicomDestination, FolderDestination, RestTable, SourceTable

REST = RestTable(url="http://orthanc:8042")
WEB = RestTable(url="http://orthanc:8042/dicom-web")


def source(**more: Any) -> SourceTable:
    return SourceTable(ae_title="PACS", host="pacs", **more)


def dicom(**more: Any) -> DicomDestination:
    return DicomDestination(kind="dicom", ae_title="ARCHIVE", host="archive", port=104, **more)


def folder(**more: Any) -> FolderDestination:
    return FolderDestination(kind="folder", path=Path("/shelf"), **more)


def test_a_source_sends_and_is_asked_where_it_has_a_port() -> None:
    known, called = source(), source(port=104)
    assert known.can.send and known.can.store == 0
    assert known.can.call is known and known.can.find is None
    assert called.can.find is called


def test_a_dicom_destination_is_stored_to_and_asked_by_find() -> None:
    to = dicom(associations=3)
    assert (to.can.send, to.can.store, to.can.find, to.can.folder) == (False, 3, to, None)


@pytest.mark.parametrize(
    ("verify", "commits", "confirms", "digests"),
    [
        ("status", False, False, False),
        ("exists", False, True, False),
        ("commitment", True, True, False),
        ("digest", False, True, True),
    ],
)
def test_the_proof_asked_for_says_what_it_is_asked(verify: str, commits: bool, confirms: bool, digests: bool) -> None:
    can = dicom(verify=verify).can
    assert (can.commit is not None, can.confirm is not None, can.digest) == (commits, confirms, digests)
    assert can.prove == (verify != "status")


def test_a_reporter_tells_the_titles_by_which_both_call() -> None:
    peer = dicom(verify="commitment", calling_ae_title="GW2").can.commit
    assert peer is not None and (peer.ae_title, peer.calling_ae_title) == ("ARCHIVE", "GW2")


def test_a_folder_proves_by_itself_and_is_no_application_entity() -> None:
    can = folder(max_used=0.5).can
    assert can.prove and can.confirm is None and can.call is None and can.tls is None
    assert (can.folder, can.max_used, can.best) == (Path("/shelf"), 0.5, "folder")


@pytest.mark.parametrize(
    ("given", "best"), [({}, "find"), ({"dicomweb": WEB}, "dicomweb"), ({"dicomweb": WEB, "rest": REST}, "rest")]
)
def test_rest_is_better_than_dicomweb_and_dicomweb_than_find(given: dict[str, RestTable], best: str) -> None:
    for table in (source(port=104, **given), dicom(**given)):
        assert (table.can.best, table.can.listing) == (best, best)


def test_a_table_chooses_how_it_is_asked_and_not_how_it_is_fetched() -> None:
    can = dicom(rest=REST, ask="ledger").can
    assert (can.listing, can.best) == ("ledger", "rest")


@pytest.mark.parametrize(
    ("table", "address"),
    [(source(), "PACS@pacs:-"), (source(port=104), "PACS@pacs:104"), (dicom(), "ARCHIVE@archive:104"), (folder(), "/shelf")],
)
def test_each_says_where_it_is(table: SourceTable | DicomDestination | FolderDestination, address: str) -> None:
    assert table.address == address
