from pathlib import Path
from typing import Any

import pytest

from gateway.app.skip_existing import SkipExisting, possible_destinations
from gateway.config.settings import Settings
from tests.support.ports import free_port

ARCHIVE = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 104}


def settings(tmp_path: Path, routes: list[dict[str, Any]], **destinations: Any) -> Settings:
    folders = {name: {"kind": "folder", "path": tmp_path / name} for name in ("a", "b")}
    tables = {"sources": {"archive": ARCHIVE}, "destinations": folders | destinations, "routes": routes}
    return Settings.model_validate(tables)


def hold(folder: Path, *uids: str) -> None:
    series = folder / "1.2" / "1.2.1"
    series.mkdir(parents=True)
    for uid in uids:
        (series / f"{uid}.dcm").touch()


@pytest.mark.parametrize(
    ("when", "leads_there"),
    [
        ({}, True),
        ({"source": "archive"}, True),
        ({"calling_ae": "ARCH*"}, True),
        ({"Modality": "CT"}, True),
        ({"source": "other"}, False),
        ({"calling_ae": "OTHER", "Modality": "CT"}, False),
    ],
)
def test_a_destination_is_possible_unless_a_route_is_for_other_sources(
    tmp_path: Path, when: dict[str, str], leads_there: bool
) -> None:
    configured = settings(tmp_path, [{"name": "r", "when": when, "to": ["a"]}])
    assert possible_destinations(configured, "archive") == (("a",) if leads_there else ())


def test_only_what_every_possible_destination_holds_is_skipped(tmp_path: Path) -> None:
    hold(tmp_path / "a", "1.2.1.1", "1.2.1.2")
    hold(tmp_path / "b", "1.2.1.2", "1.2.1.3")
    existing = SkipExisting(settings(tmp_path, [{"name": "r", "to": ["a", "b"]}]))
    assert existing("archive", "1.2", ["1.2.1"]) == {"1.2.1.2"}


def test_nothing_is_skipped_where_no_route_leads_anywhere(tmp_path: Path) -> None:
    hold(tmp_path / "a", "1.2.1.1")
    assert SkipExisting(settings(tmp_path, []))("archive", "1.2", ["1.2.1"]) == set()


def test_nothing_is_skipped_when_a_destination_cannot_be_asked(tmp_path: Path) -> None:
    hold(tmp_path / "a", "1.2.1.1")
    down = {"kind": "dicom", "ae_title": "DOWN", "host": "127.0.0.1", "port": free_port()}
    existing = SkipExisting(settings(tmp_path, [{"name": "r", "to": ["a", "down"]}], down=down))
    assert existing("archive", "1.2", ["1.2.1"]) == set()
