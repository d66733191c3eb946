"""Transcoding into JPEG 2000 Lossless, every frame proven, beside the codec with nothing around it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.codecs import FIGURES
from benchmarks.datasets import DataSet, DataSets
from benchmarks.harness import CPU_GB, GROWN, RATE, US, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.machine import ROOT
from benchmarks.process import Cost
from tests.support.processes import Running

DEADLINE_S = 900.0
BARE, ENCODE_ONLY = "bare codec", "bare codec, encode only"

Chosen = Callable[[DataSets], DataSet]


def _compress(how: str, chosen: Chosen, with_memory: bool, bench: Bench, folder: Path) -> Metrics:
    """Have a process of its own compress a data set, so that CPU and memory are those of this work alone."""
    data = chosen(bench.data)
    bench.settle()
    with Running([sys.executable, "-m", "benchmarks.codecs", how, data.folder, folder], cwd=ROOT) as process:
        found = json.loads(process.wait_for_line(FIGURES, deadline_s=DEADLINE_S))
    assert found["instances"] == data.count, f"{found['instances']} of {data.count} were compressed"
    cost = Cost(found["cpu_s"], found["peak_mib"], found["grown_mib"]) if with_memory else Cost(found["cpu_s"])
    return transfer(data, found["seconds"], cost)


def _beside_the_codec(name: str, title: str, chosen: Chosen) -> Row:
    parties: dict[str, Party] = {how: partial(_compress, how, chosen, False) for how in (US, BARE, ENCODE_ONLY)}
    goals = (
        Goal(RATE, 0.9, BARE),
        Goal(CPU_GB, None, BARE, at_least=False),
        Goal(CPU_GB, None, ENCODE_ONLY, at_least=False, party=BARE),
    )
    return Row(name, title, parties, goals)


ROWS = [
    _beside_the_codec("codec-encode-512", "Compress CT slices, 512×512×16", lambda data: data.slices),
    _beside_the_codec("codec-encode-2048", "Compress instances of 2048×2048×16", lambda data: data.large),
    Row(
        "codec-multiframe",
        "Compress one multi-frame of 1 GiB",
        {US: partial(_compress, "gateway, cold", lambda data: data.volume, True)},
        (Goal(GROWN, 500.0, at_least=False),),
        rounds=1,
    ),
]
