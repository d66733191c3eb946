"""A destination that is not asked: what the ledger has as verified there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.archives.places import Unheld, place
from gateway.config.settings import Settings
from gateway.core.domain import DeliveryState
from gateway.ledger.database.transitions import move
from tests.support import data
from tests.support.instances import Store, store

THERE = {"kind": "dicom", "ae_title": "THERE", "host": "127.0.0.1", "port": 104, "ask": "ledger"}


def verify(kept: Store, uid: str, to: str) -> None:
    number = kept.row(uid, to=to).id
    for state in (DeliveryState.SENDING, DeliveryState.VERIFIED):
        kept.ledger.write(lambda connection, state=state: move(connection, [number], state, now=1.0))


def test_only_what_is_verified_counts_and_only_at_that_destination(tmp_path: Path) -> None:
    with store(tmp_path / "state") as kept:
        files = data.ct_series(tmp_path / "files", 3, rows=4)
        uids = [kept.add_file(path, "there", "elsewhere") for path in files]
        verify(kept, uids[0], "there")
        verify(kept, uids[1], "elsewhere")
        study, series, *_ = data.identity(files[0])
        there = place(Settings.model_validate({"destinations": {"there": THERE}}), "there", kept.ledger)
        assert there.instances(study, series) == {uids[0]}
        assert there.series(study)[series].instances == 1
        assert there.studies({"StudyInstanceUID": study})[study].instances == 1
        assert there.studies({"StudyInstanceUID": "1.2"}) == {} == there.studies({"StudyDate": "20240229"})
        assert not there.gives_files and there.remarks()
        with pytest.raises(Unheld):
            there.fetch(study, series, uids[0], tmp_path / "file")
