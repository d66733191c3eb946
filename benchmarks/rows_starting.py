"""Cost of starting a command: the time from its start to its end, for commands that only print something."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.harness import CPU_1000, MS, Bench, Goal, Metrics, Row
from tests.support.gateway import COMMAND, Gateway, folder_destination
from tests.support.ports import free_port

STARTS = 20
QUICK_STARTS = 3


def _started(command: Sequence[str], bench: Bench, folder: Path, *, code: int = 0) -> Metrics:
    """Run a command again and again, the first time unmeasured: it reads from the disk what others find in memory.

    It may keep its bytecode, as it does where it is installed, and ends with `code`.
    """
    times: list[float] = []
    starts = STARTS if bench.data.sizes.echoes > 100 else QUICK_STARTS
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for number in range(starts + 1):
        if number == 1:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - began)
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {MS: 1000 * statistics.median(times[1:]), CPU_1000: 1000 * cpu_s / starts}


def _alone(command: str, bench: Bench, folder: Path, *, code: int = 0) -> Metrics:
    """Run a command where no gateway runs, and at the port of the source ``pacs`` nobody listens."""
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}
    site = Gateway(
        folder / "site", {"sources": {"pacs": pacs}, "destinations": {"archive": folder_destination(folder / "archive")}}
    )
    return _started([*COMMAND, *command.split(), "--config", str(site.config)], bench, folder, code=code)


def _attached(command: str, bench: Bench, folder: Path) -> Metrics:
    """Run a command that asks a running gateway."""
    with receivers.gateway(folder) as (_, site):
        return _started([*COMMAND, *command.split(), "--config", str(site.config)], bench, folder)


ROWS = [
    Row(
        "small-command",
        "Start of a command, to its end",
        {
            "gateway": partial(_started, (*COMMAND, "--version")),
            "gateway --help": partial(_started, (*COMMAND, "--help")),
            "gateway config": partial(_alone, "config"),
            "gateway status, none runs": partial(_alone, "status"),
            "gateway queue list, none runs": partial(_alone, "queue list"),
            "gateway find at a closed port, none runs": partial(_alone, "find pacs", code=1),
            "gateway status, one runs": partial(_attached, "status"),
            "rclone version": partial(_started, ("rclone", "version")),
            "dcmsend --version": partial(_started, ("dcmsend", "--version")),
        },
        (
            Goal(MS, 300, at_least=False),
            Goal(MS, 300, at_least=False, party="gateway --help"),
            Goal(MS, 500, at_least=False, party="gateway config"),
            Goal(MS, 500, at_least=False, party="gateway status, none runs"),
            Goal(MS, 500, at_least=False, party="gateway queue list, none runs"),
            Goal(MS, 500, at_least=False, party="gateway find at a closed port, none runs"),
            Goal(MS, 500, at_least=False, party="gateway status, one runs"),
            Goal(MS, None, "rclone version", at_least=False),
            Goal(MS, None, "dcmsend --version", at_least=False),
        ),
    ),
]
