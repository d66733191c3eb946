"""Reports of the benchmarks: goals, tables, the plot, and the page that they are written into."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, report
from benchmarks.harness import INSTANCES, MS, RATE, Bench, Goal, Metrics, Result, Row
from benchmarks.machine import machine, sentence

SVG = "{http://www.w3.org/2000/svg}"
FASTER = Goal(RATE, 2.0, "peer")
SOON = Goal(MS, 5.0, at_least=False)
BESIDE = Goal(INSTANCES, None, "peer")


def _idle(_bench: Bench, _folder: Path) -> Metrics:
    return {}


def _result(*rounds: tuple[float, float], name: str = "receive-work") -> Result:
    row = Row(name, "Some <work>", {"gateway": _idle, "peer": _idle}, (FASTER, SOON, BESIDE))
    return Result(
        row,
        [{"gateway": {RATE: ours, INSTANCES: ours, MS: 3.0}, "peer": {RATE: theirs, INSTANCES: theirs}} for ours, theirs in rounds],
    )


def _run(*, quick: bool = False) -> report.Run:
    return report.Run(machine(Path(__file__).parent), 3, quick, 600.0, datetime(2030, 1, 2, tzinfo=UTC))


def test_a_goal_is_reached_or_not_by_the_median() -> None:
    text = report.markdown([_result((100, 50), (300, 100), (10, 10))], _run())
    assert "| Some <work> | MB/s ≥ 2 × peer | 2 × | 1 × … 3 × | yes |" in text
    assert "|  | ms ≤ 5 | 3 ms | 3 ms … 3 ms | yes |" in text
    assert "|  | MB/s ≥ 2 × peer" not in text
    assert "**no**" in report.markdown([_result((10, 10))], _run())


def test_a_ratio_without_a_goal_is_reported_and_not_counted() -> None:
    text = report.markdown([_result((100, 50))], _run())
    assert "|  | instances/s beside peer | 2 × | 2 × … 2 × | no goal |" in text
    assert text.startswith("2 of 2 goals reached.")


def test_what_no_party_managed_is_said_and_is_no_reached_goal() -> None:
    failed = Result(_result().row, [{"peer": {RATE: 1.0}}], ["gateway, round 1: it ended"])
    text = report.markdown([failed], _run())
    assert text.startswith("0 of 2 goals reached.")
    assert "| – | – | **not measured** |" in text
    assert "- Some <work>: gateway, round 1: it ended" in text


def test_a_table_has_the_columns_that_somebody_has_a_figure_in() -> None:
    lines = report.markdown([_result((1234.5, 0.01234))], _run()).splitlines()
    assert "| work | party | MB/s | instances/s | ms |" in lines
    assert "| Some <work> | gateway | 1,234 | 1,234 | 3 |" in lines
    assert "|  | peer | 0.0123 | 0.0123 |  |" in lines


def test_sentences_are_broken_into_lines_that_a_page_may_have() -> None:
    measured = [_result((1, 1), name=f"row-{number}") for number in range(30)]
    lines = report.markdown([*measured, replace(_result((1, 1)), origin="0.1.0 (abc), 2030-01-01")], _run()).splitlines()
    assert len(lines) > 60
    assert [line for line in lines if len(line) > 132 and not line.startswith("|")] == []


def test_figures_never_look_like_powers_of_ten() -> None:
    assert report.number(0.00000123) == "0.000"


def test_short_runs_are_named_as_such() -> None:
    assert "not to be published" in report.markdown([_result((1, 1))], _run(quick=True))
    assert "not to be published" not in report.markdown([_result((1, 1))], _run())


def test_the_document_has_every_round_and_the_machine(tmp_path: Path) -> None:
    report.write_json(tmp_path / "figures.json", report.document([_result((100, 50), (10, 10))], _run()))
    found = json.loads((tmp_path / "figures.json").read_text())
    assert [taken["gateway"][RATE] for taken in found["rows"][0]["rounds"]] == [100, 10]
    assert found["rows"][0]["goals"][0] == {"text": "MB/s ≥ 2 × peer", "measured": [2.0, 1.0], "met": False}
    assert found["machine"]["cores"] >= 1


def test_rows_of_an_earlier_run_stay_with_their_origin(tmp_path: Path) -> None:
    before = replace(_run(), at=datetime(2029, 1, 2, tzinfo=UTC))
    old, new = _result((100, 50), name="receive-old"), _result((10, 10), name="receive-new")
    report.write_json(tmp_path / "figures.json", report.document([old, new], before))
    known = report.earlier(tmp_path / "figures.json", [old.row, new.row, _result(name="receive-other").row])
    assert list(known) == ["receive-old", "receive-new"]
    assert known["receive-old"].rounds == old.rounds
    both = [known["receive-old"], new]
    assert f"all else earlier, as `performance.json` says: {before.origin}." in report.markdown(both, _run())
    origins = [row["origin"] for row in report.document(both, _run())["rows"]]
    assert origins == [before.origin, _run().origin]
    assert "earlier" not in report.markdown([old, new], _run())


def test_the_machine_is_described_in_a_sentence_whatever_is_installed() -> None:
    assert "cores" in sentence(machine(Path(__file__).parent))


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


def _bars(results: list[Result]) -> list[ElementTree.Element]:
    drawn = ElementTree.fromstring(plot.svg(results)).findall(f"{SVG}rect")
    return drawn[1:]


def test_the_plot_has_a_bar_for_each_thing_that_was_measured() -> None:
    nothing = Result(_result().row, [{}])
    assert len(_bars([_result((100, 50)), _result((10, 100), name="send-work"), nothing])) == 6


def test_a_bar_that_reaches_its_goal_is_green_and_crosses_the_line() -> None:
    reached, missed = _bars([_result((300, 50))])[0], _bars([_result((20, 50))])[0]
    line = float(reached.attrib["x"])
    assert (reached.attrib["fill"], missed.attrib["fill"]) == (plot.GOOD, plot.BAD)
    assert float(missed.attrib["x"]) < line
    assert float(missed.attrib["x"]) + float(missed.attrib["width"]) == pytest.approx(line, abs=0.2)


def test_a_bar_beyond_the_scale_ends_at_its_edge() -> None:
    (bar, *_) = _bars([_result((1e9, 1))])
    assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= plot.WIDTH - plot.VALUE + 0.1
