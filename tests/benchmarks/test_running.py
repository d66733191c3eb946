"""``python -m benchmarks`` itself, on short runs of a row: it ends, and says that nothing of it is to be published."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.processes import Running, run

ROOT = Path(__file__).parents[2]


def _benchmarks(*arguments: str | Path) -> str:
    return run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, deadline_s=110).stdout


def test_the_rows_are_listed() -> None:
    assert "relay-orthanc" in _benchmarks("--list")


@pytest.mark.slow
@pytest.mark.peers
def test_a_row_is_measured_with_real_peers(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    text = _benchmarks("--quick", "--rounds", "1", "--only", "send-tls", "--folder", tmp_path, "--output", output)
    assert "not to be published" in text
    (row,) = json.loads(output.read_text())["rows"]
    assert row["failures"] == []
    assert all(row["rounds"][0][party]["MB/s"] > 0 for party in ("gateway", "storescu"))


@pytest.mark.slow
@pytest.mark.peers
def test_ending_it_early_ends_the_peers_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "receive-ct-1", "--folder", tmp_path]
    with Running(command, cwd=ROOT) as process:
        process.wait_for_line("gateway", deadline_s=60)
        process.process.terminate()
        assert process.wait(deadline_s=60) == 130
    assert not list(tmp_path.iterdir())
