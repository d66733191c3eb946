"""What the benchmarks make of figures: ratios within a round, medians over rounds, goals, and the page they are written into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, report
from benchmarks.harness import MS, RATE, Bench, Goal, Metrics, Result, Row
from benchmarks.process import Meter


def _idle(_bench: Bench, _folder: Path) -> Metrics:
    return {}


FASTER = Goal(RATE, 2.0, "peer")
QUICK = Goal(MS, 5.0, at_least=False)


def _result(*rounds: tuple[float, float]) -> Result:
    row = Row("work", "Some <work>", {"gateway": _idle, "peer": _idle}, (FASTER, QUICK))
    return Result(row, [{"gateway": {RATE: ours, MS: 3.0}, "peer": {RATE: theirs}} for ours, theirs in rounds])


def test_ratios_are_taken_within_a_round() -> None:
    result = _result((100, 50), (300, 100), (10, 10))
    assert result.measured(FASTER) == [2.0, 3.0, 1.0]


def test_a_goal_without_a_peer_is_about_the_value_itself() -> None:
    assert _result((1, 1), (1, 1)).measured(QUICK) == [3.0, 3.0]


def test_a_round_in_which_a_party_failed_has_no_ratio() -> None:
    result = _result((100, 50), (300, 100))
    del result.rounds[0]["peer"]
    assert result.measured(FASTER) == [3.0]


def test_a_goal_is_reached_or_not_by_the_median() -> None:
    text = report.markdown([_result((100, 50), (300, 100), (10, 10))], rounds=3, quick=False)
    assert "| Some <work> | MB/s ≥ 2 × peer | 2 | 1 … 3 | yes |" in text
    assert "| Some <work> | ms ≤ 5 | 3 | 3 … 3 | yes |" in text
    assert "**no**" in report.markdown([_result((10, 10))], rounds=1, quick=False)


def test_short_runs_are_named_as_such() -> None:
    assert "not to be published" in report.markdown([_result((1, 1))], rounds=1, quick=True)


def test_figures_replace_the_earlier_ones_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page(page, "new\n")
    report.write_page(page, "newer\n")
    assert page.read_text() == f"before\n{report.BEGIN}\nnewer\n{report.END}\nafter\n"


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match="no place for figures"):
        report.write_page(page, "new")
    assert page.read_text() == "text"


def test_the_documentation_has_a_place_for_figures() -> None:
    text = (Path(__file__).parents[2] / "docs/performance.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_the_plot_is_well_formed_and_has_a_bar_for_each_ratio() -> None:
    drawn = ElementTree.fromstring(plot.svg([_result((100, 50)), _result((10, 100))]))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 1 + 2


GROWS = "import sys; print('up', flush=True); input(); held = bytes(range(256)) * (32 << 12); print('grown', flush=True); input()"


def test_a_meter_tells_what_a_process_took() -> None:
    with subprocess.Popen([sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        meter = Meter(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "grown\n"
        cost = meter.stop()
        process.stdin.write("\n")
    assert cost.grown_mib is not None
    assert 30 < cost.grown_mib < 40
