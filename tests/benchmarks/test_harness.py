"""Measuring: rounds in turn, ratios within a round, parties that fail left out, the cost of a process."""

from __future__ import annotations

import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from benchmarks.__main__ import ROWS
from benchmarks.datasets import QUICK, DataSets
from benchmarks.harness import CPU_GB, LOCK_HELD, LOCK_MS, MS, RATE, Bench, Goal, Metrics, Result, Row, chosen, run_row, transfer
from benchmarks.probed import PAUSE_S
from benchmarks.process import Cost, Meter
from benchmarks.report import FAMILIES
from benchmarks.rows_lock import waits
from benchmarks.senders import Window
from tests.support import data

TINY = replace(QUICK, ct=3, small=20, slices=3, volume=5)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as kept:
        yield Bench(tmp_path, DataSets(tmp_path / "data", TINY), kept)


def _gives(value: float) -> Metrics:
    return {RATE: value}


def _row(**more: object) -> Row:
    parties = {"gateway": lambda *_: _gives(2), "peer": lambda *_: _gives(1), "slow peer": lambda *_: _gives(1)}
    return Row("receive-x", "Work", parties, **more)  # type: ignore[arg-type]


def test_ratios_are_taken_within_a_round() -> None:
    rounds = [{"gateway": _gives(ours), "peer": _gives(theirs)} for ours, theirs in ((100, 50), (300, 100), (10, 10))]
    assert Result(_row(), rounds).measured(Goal(RATE, 2.0, "peer")) == [2.0, 3.0, 1.0]


def test_a_goal_without_a_peer_is_about_the_value_itself() -> None:
    assert Result(_row(), [{"gateway": {MS: 3.0}}]).measured(Goal(MS, 5.0, at_least=False)) == [3.0]


def test_a_round_in_which_a_party_failed_has_no_ratio() -> None:
    rounds = [{"gateway": _gives(100)}, {"gateway": _gives(300), "peer": _gives(100)}]
    assert Result(_row(), rounds).measured(Goal(RATE, 2.0, "peer")) == [3.0]


@pytest.mark.parametrize(
    ("goal", "value", "met", "margin"),
    [
        (Goal(RATE, 2.0, "peer"), 3.0, True, 1.5),
        (Goal(RATE, 2.0, "peer"), 1.0, False, 0.5),
        (Goal(MS, 4.0, at_least=False), 2.0, True, 2.0),
        (Goal(MS, 4.0, at_least=False), 8.0, False, 0.5),
        (Goal(MS, 4.0, at_least=False), 0.0, True, float("inf")),
        (Goal(CPU_GB, None, "peer", at_least=False), 0.5, None, 2.0),
    ],
)
def test_a_margin_above_one_is_better_than_the_goal(goal: Goal, value: float, met: bool | None, margin: float) -> None:
    assert (goal.met(value), goal.margin(value)) == (met, margin)


def test_each_round_begins_with_another_party_and_all_take_part() -> None:
    row = _row()
    assert [row.turns(number)[0] for number in range(4)] == ["gateway", "peer", "slow peer", "gateway"]
    assert all(sorted(row.turns(number)) == sorted(row.parties) for number in range(4))


def test_who_takes_long_and_has_no_goal_takes_part_once() -> None:
    row = _row(once=frozenset({"slow peer"}))
    assert [len(row.turns(number)) for number in range(3)] == [3, 2, 2]


def test_a_party_that_fails_is_noted_and_the_others_go_on(bench: Bench) -> None:
    def fails(_bench: Bench, _folder: Path) -> Metrics:
        raise subprocess.TimeoutExpired("peer", 3)

    row = replace(_row(), parties={"gateway": lambda *_: _gives(2), "peer": fails})
    result = run_row(row, bench, 2)
    assert result.rounds == [{"gateway": {RATE: 2}}, {"gateway": {RATE: 2}}]
    assert [failure.partition(":")[0] for failure in result.failures] == ["peer, round 1", "peer, round 2"]


def test_every_party_has_an_empty_folder_that_goes_afterwards(bench: Bench) -> None:
    seen: list[Path] = []

    def party(_bench: Bench, folder: Path) -> Metrics:
        assert not list(folder.iterdir())
        (folder / "file").touch()
        seen.append(folder)
        return {}

    run_row(replace(_row(), parties={"gateway": party, "peer": party}), bench, 2)
    assert len(set(seen)) == 4
    assert not any(folder.exists() for folder in seen)


def test_a_transfer_is_told_in_bytes_and_in_instances(bench: Bench) -> None:
    ct = bench.data.ct
    metrics = transfer(ct, 2.0, Cost(0.3))
    assert metrics[RATE] == pytest.approx(ct.size_bytes / 2e6)
    assert metrics[CPU_GB] == pytest.approx(0.3 / ct.size_bytes * 1e9)


def test_row_names_are_unique_and_goals_name_parties_of_every_round() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.family for row in ROWS} == set(FAMILIES)
    for row in ROWS:
        spoken_of = {goal.party for goal in row.goals} | {goal.against for goal in row.goals if goal.against}
        assert spoken_of <= set(row.parties), row.name
        assert not spoken_of & row.once, row.name
        assert row.once <= set(row.parties), row.name


def test_rows_are_chosen_by_how_their_names_begin() -> None:
    assert {row.family for row in chosen(ROWS, ["send", "lock-1"])} == {"send", "lock"}
    assert chosen(ROWS, ["no such row"]) == []


def test_data_sets_are_what_they_say_and_differ_in_uids(tmp_path: Path) -> None:
    sets = DataSets(tmp_path, TINY)
    for made, syntax in ((sets.ct, "1.2.840.10008.1.2.1"), (sets.j2k, "1.2.840.10008.1.2.4.90")):
        heads = [data.head(path) for path in made.files]
        assert {str(head.file_meta.TransferSyntaxUID) for head in heads if head} == {syntax}
        assert len({str(head.SOPInstanceUID) for head in heads if head}) == made.count == 3
        assert {str(head.StudyInstanceUID) for head in heads if head} == {made.study_uid}
    assert sets.j2k.size_bytes < sets.ct.size_bytes / 2


def test_what_is_compressed_is_what_it_says_and_no_mere_noise(bench: Bench) -> None:
    (volume,) = bench.data.volume.files
    for path, frames in [*((path, 1) for path in bench.data.slices.files), (volume, 5)]:
        dataset = pydicom.dcmread(path)
        assert dataset.get("NumberOfFrames", 1) == frames
        assert len(dataset.PixelData) == frames * dataset.Rows * dataset.Columns * 2 == frames * 512 * 512 * 2
        assert len(zlib.compress(dataset.PixelData, 1)) < 0.7 * len(dataset.PixelData)


@pytest.mark.parametrize("how", ["gateway", "bare codec"])
def test_the_gateway_and_the_bare_codec_compress_all_there_is(how: str, bench: Bench, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == "codec-encode-512")
    metrics = row.parties[how](bench, tmp_path)
    assert metrics[RATE] > 0
    assert 1 < metrics[CPU_GB] < 10000


def test_kept_data_sets_are_taken_and_half_made_ones_are_not(tmp_path: Path) -> None:
    folder = DataSets(tmp_path, TINY).small.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.dcm")}
    (tmp_path / ".partial-left").mkdir()
    again = DataSets(tmp_path, TINY).small
    assert {path: path.stat().st_mtime_ns for path in again.files} == before
    assert DataSets(tmp_path, replace(TINY, small=4)).small.count == 4


def test_a_data_set_is_split_without_losing_or_repeating_a_file(bench: Bench) -> None:
    pieces = bench.data.small.split(4)
    assert sorted(path for piece in pieces for path in piece.files) == bench.data.small.files
    assert sum(piece.count for piece in pieces) == bench.data.small.count


def test_senders_share_the_files_of_a_data_set(bench: Bench) -> None:
    shares = bench.data.small.shares(4)
    files = [path for share in shares for folder in share for path in folder.iterdir()]
    assert len(shares) == 4
    assert sorted(files) == bench.data.small.files


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


PROBED = """
import sys, threading, time
from benchmarks.probed import Probe
probe = Probe()
threading.Thread(target=probe.run, daemon=True).start()
end = time.monotonic() + 0.6
while time.monotonic() < end:
    {work}
print(sum(waited for _, waited in probe.samples) / len(probe.samples))
"""


def _mean_wait_s(work: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROBED.format(work=work)], capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def test_the_probe_tells_a_computing_thread_from_a_sleeping_one() -> None:
    # The interpreter hands the lock over after 5 ms.
    assert 3 * _mean_wait_s("time.sleep(0.1)") < 0.003 < _mean_wait_s("sum(range(1000))")


def test_waits_for_the_lock_count_within_the_window_only() -> None:
    window = Window(time.time(), 1.0, Cost(0.0))
    inside, outside = window.began_at + 0.5, window.began_at + 1 + PAUSE_S
    found = waits([(inside, 0.004), (inside, 0.0), (outside, 9.0)], window)
    assert found == {LOCK_MS: pytest.approx(2.0), LOCK_HELD: 50.0}
    with pytest.raises(AssertionError, match="no sample"):
        waits([(outside, 1.0)], window)
