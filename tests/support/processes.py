"""Real programs as context managers: own process group, output kept line by line, ended with the test whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import PATIENCE_S

ALWAYS = {"TCP_NODELAY": "1"}
"""DCMTK and Orthanc keep Nagle's algorithm on unless told otherwise: 40 ms a message with a stock receiver."""


def _surroundings() -> dict[str, str]:
    """Return our environment with DCMTK first: an activated virtual environment has pynetdicom's programs of the same names."""
    own = str(Path(sys.executable).parent)
    others = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    return {**os.environ, **ALWAYS, "PATH": os.pathsep.join([*others, own])}


class Running:
    """A program that runs until its context ends; `lines` is what it wrote so far (standard output and error together)."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: int = signal.SIGTERM,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self.command = [str(part) for part in command]
        self.lines: list[str] = []
        self._stop_signal = stop_signal
        self._stop_timeout_s = stop_timeout_s
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**_surroundings(), **(environ or {})},
            cwd=cwd,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"reader-{self.process.pid}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything written so far."""
        with self._news:
            return "\n".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for_line(self, fragment: str, *, deadline_s: float = PATIENCE_S, after: int = 0) -> str:
        """Return the first line from index `after` on that contains `fragment`; fail when the program ends or time is up first."""
        end = time.monotonic() + deadline_s
        with self._news:
            seen = after
            while True:
                found = next((line for line in self.lines[seen:] if fragment in line), None)
                if found is not None:
                    return found
                seen, left = len(self.lines), end - time.monotonic()
                if self._ended or left <= 0:
                    written = "\n".join(self.lines[-40:])
                    raise AssertionError(f"{self.command[0]} never wrote {fragment!r}; it wrote:\n{written}")
                self._news.wait(left)

    def alive(self) -> bool:
        """Tell whether the program still runs."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def freeze(self) -> None:
        """SIGSTOP: the peer keeps its connections and does nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> int:
        """SIGKILL and wait; returns the exit status."""
        self.signal(signal.SIGKILL)
        return self._join(10.0)

    def wait(self, deadline_s: float = 60.0) -> int:
        """Wait for the program to end by itself and return its exit status."""
        try:
            return self._join(deadline_s)
        except subprocess.TimeoutExpired:
            tail = "\n".join(self.lines[-40:])
            raise AssertionError(f"{self.command[0]} still runs after {deadline_s:g} s; it wrote:\n{tail}") from None

    def stop(self) -> int:
        """End the program gracefully, by force where it does not obey, and return its exit status."""
        self.signal(signal.SIGCONT)
        if self.alive():
            self.signal(self._stop_signal)
        try:
            return self._join(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def _join(self, deadline_s: float) -> int:
        status = self.process.wait(deadline_s)
        self.signal(signal.SIGKILL)  # what it forked and left behind
        self._reader.join(5.0)
        if not self._reader.is_alive() and self.process.stdout is not None:
            self.process.stdout.close()
        return status


def run(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    deadline_s: float = 60.0,
    check: bool = True,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it wrote; with `check` a failing exit status fails the test."""
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=deadline_s,
        env={**_surroundings(), **(environ or {})},
        cwd=cwd,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(parts[:6])} … ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def state_of(pid: int) -> str:
    """Return the letter that /proc tells of a process ("T" stopped, "Z" ended and not waited for); empty where it is gone."""
    stat = _stat(pid)
    return stat[0] if stat else ""


def children_of(pid: int) -> set[int]:
    """Return the processes that `pid` started and that are there still, also those that ended and were not waited for.

    /proc is not a snapshot: what ends while it is read is left out, and costs nothing else.
    """
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {each for each in pids if (stat := _stat(each)) is not None and int(stat[1]) == pid}


def _stat(pid: int) -> list[str] | None:
    """Return the fields behind a process's name in /proc/PID/stat, None where it is gone, be it between two of these calls."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
