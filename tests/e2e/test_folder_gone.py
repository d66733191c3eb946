"""A folder destination whose share is gone, through the whole gateway."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, folder_destination, settled

pytestmark = pytest.mark.slow


def test_a_folder_that_was_replaced_is_delivered_into_once_it_is_accepted(tmp_path: Path, ct_series: Any) -> None:
    first, second = ct_series(2)
    archive = tmp_path / "share" / "archive"
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"files": folder_destination(archive)}})
    with gateway.serving():
        assert gateway.run("send", first, "--to", "files").returncode == 0
        shutil.rmtree(archive)
        archive.mkdir()
        waits = gateway.run("send", second, "--to", "files", "--wait-timeout", "5")
        assert waits.returncode == 1
        assert "gateway accept-folder files" in waits.stdout
        assert gateway.run("echo", "files").returncode == 1
        assert gateway.run("accept-folder", "nowhere").returncode == 2
        assert list(archive.iterdir()) == []
        assert gateway.run("accept-folder", "files").returncode == 0
        settled(gateway, 2, "verified")
    assert len(list(archive.rglob("*.dcm"))) == 1
