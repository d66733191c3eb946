"""Cost of a process and its children, read from /proc (Linux), and programs that are timed from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_S = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, float] | None:
    """Return (parent, CPU seconds with those of children it waited for) of a process; None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[1]), sum(int(field) for field in fields[11:15]) / _TICKS_S


def _descendants(pid: int) -> Iterator[tuple[int, float]]:
    """Yield (process id, CPU seconds) of `pid` and of everything below it that is alive or not waited for yet."""
    table = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    wanted = [pid]
    while wanted:
        at = wanted.pop()
        if (found := table.get(at)) is not None:
            yield at, found[1]
            wanted += [child for child, stat in table.items() if stat is not None and stat[0] == at]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of `pid` and of all its children so far."""
    return sum(seconds for _, seconds in _descendants(pid))


def resident_mib(pid: int) -> float:
    """Return what `pid` and its children have resident now."""
    return sum(_memory(child, "VmRSS") for child, _ in _descendants(pid))


def peak_mib(pid: int) -> float:
    """Return the most that each of `pid` and its living children had resident since `forget_peak`, summed."""
    return sum(_memory(child, "VmHWM") for child, _ in _descendants(pid))


def forget_peak(pid: int) -> None:
    """Begin `peak_mib` anew."""
    for child, _ in _descendants(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            Path(f"/proc/{child}/clear_refs").write_text("5")


def _memory(pid: int, key: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":")), 0.0)


@dataclass(frozen=True)
class Cost:
    """Resources that processes used between `Meter.start` and `Meter.stop`."""

    cpu_s: float
    peak_mib: float | None = None
    grown_mib: float | None = None
    """`peak_mib` beyond what was resident at the start; neither is known of programs that ended."""


class Meter:
    """Watches the processes `pids` and their children over a stretch of work."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self.start()

    def start(self) -> None:
        """Begin."""
        for pid in self._pids:
            forget_peak(pid)
        self._resident = sum(resident_mib(pid) for pid in self._pids)
        self._cpu = sum(cpu_seconds(pid) for pid in self._pids)

    def stop(self) -> Cost:
        """Return what was used since the start."""
        peak = sum(peak_mib(pid) for pid in self._pids)
        return Cost(sum(cpu_seconds(pid) for pid in self._pids) - self._cpu, peak, peak - self._resident)
