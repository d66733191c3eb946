"""Senders: DCMTK's, stock pynetdicom's, and the gateway's requestor in a process that lives on between two runs.

A window begins with the first A-ASSOCIATE-RQ and ends with the last response of the last sender. Programs start and look through
their files before it, and what that costs is in nobody's figures: it is measured apart and taken off DCMTK's CPU time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datasets import DataSet
from benchmarks.process import Cost
from tests.support.certificates import Files
from tests.support.ports import HOST, free_port

NODELAY = {"TCP_NODELAY": "1"}
STOCK = {"TCP_NODELAY": "0"}
"""As DCMTK and Orthanc come: with Nagle's algorithm."""

PDU_131072 = ("-pdu", "131072", "--max-send-pdu", "131072")

DEADLINE_S = 300.0
"""A sender that takes longer is ended, and its party failed."""

_LOG = """log4cplus.rootLogger = INFO, file
log4cplus.appender.file = log4cplus::FileAppender
log4cplus.appender.file.File = {path}
log4cplus.appender.file.ImmediateFlush = false
log4cplus.appender.file.layout = log4cplus::PatternLayout
log4cplus.appender.file.layout.ConversionPattern = %D{{%s.%q}} %m%n
"""
_SUCCESS = re.compile(r"Response \(Success\)")


@dataclass(frozen=True)
class Window:
    """Duration of sending, and its cost for the senders."""

    began_at: float
    """UTC seconds since the epoch, so that what ends later than the senders can be timed from the same moment."""
    seconds: float
    cost: Cost

    def until_now(self) -> float:
        """Return the seconds since it began."""
        return time.time() - self.began_at


@dataclass(frozen=True)
class Target:
    """The receiver to send to."""

    port: int
    ae_title: str = "ANY-SCP"
    tls: Files | None = None


@dataclass(frozen=True)
class _Program:
    """One process of ``dcmsend`` or ``storescu`` with its share of the files."""

    name: str
    share: Sequence[Path]
    log: Path
    environ: Mapping[str, str]

    def start(self, target: Target) -> subprocess.Popen[bytes]:
        self.log.unlink(missing_ok=True)
        config = self.log.with_suffix(".cfg")
        config.write_text(_LOG.format(path=self.log))
        own = ["-nh", "-nuc", "-dn"] if self.name == "dcmsend" else ["-R"]
        secure: list[str | Path] = []
        if target.tls is not None:
            secure = ["+tls", target.tls["key"], target.tls["certificate"], "+cf", target.tls["ca"]]
        command = [self.name, "-lc", config, "+sd", "+r", *own, *PDU_131072, "-aec", target.ae_title, *secure]
        return subprocess.Popen(
            [str(part) for part in [*command, HOST, target.port, *self.share]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(self.environ),
        )

    def start_cpu_s(self) -> float:
        """Return what it costs to start and to look through the files: to a port where nobody listens it gets no further."""
        return _ended(self.start(Target(free_port())))[1]


def dcmtk(
    program: str, *targets: Target, data: DataSet, folder: Path, senders: int = 1, environ: Mapping[str, str] = NODELAY
) -> Window:
    """Send `data` with as many processes of ``dcmsend`` or ``storescu`` as `senders`, each its own part of it.

    With several `targets` they send to them in turn.

    Raises:
        AssertionError: not every instance was answered with success, or not in time.
    """
    shares = [share for share in data.shares(senders) if share]
    programs = [_Program(program, share, folder / f"{program}-{number}.log", environ) for number, share in enumerate(shares)]
    before_s = sum(made.start_cpu_s() for made in programs)
    started = [made.start(targets[number % len(targets)]) for number, made in enumerate(programs)]
    try:
        ends = [_ended(process) for process in started]
    finally:
        for process in started:
            _end(process)
    assert all(status == 0 for status, _ in ends), f"{program} ended with {[status for status, _ in ends]}"
    texts = [made.log.read_text() for made in programs]
    stored = sum(len(_SUCCESS.findall(text)) for text in texts)
    assert stored == data.count, f"{program}: {stored} of {data.count} were stored"
    began_at = min(map(_first, texts))
    return Window(began_at, max(map(_last, texts)) - began_at, Cost(max(0.0, sum(cpu_s for _, cpu_s in ends) - before_s)))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nobody sending where the waiting was broken off."""
    if process.returncode is None:
        process.kill()
        process.wait()


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for `process`, by force once it is late; return its exit status and its CPU seconds."""
    watchdog = threading.Timer(DEADLINE_S, process.kill)
    watchdog.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        watchdog.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with DCMTK's programs before pynetdicom's of the same names."""
    own = str(Path(sys.executable).parent)
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    return {**os.environ, "PATH": os.pathsep.join(folders), **more}


def _first(log: str) -> float:
    return next(float(line.split()[0]) for line in log.splitlines() if "Requesting Association" in line)


def _last(log: str) -> float:
    return next(float(line.split()[0]) for line in reversed(log.splitlines()) if "Response (" in line)


class Worker:
    """A process of `benchmarks.worker` that takes one command after the other; started when there is none."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def do(self, **command: Any) -> dict[str, float]:
        """Have one command done and return its result.

        Raises:
            AssertionError: it failed, or took too long; the next command has a new process.
        """
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not answer:
            self.close()
            raise AssertionError("the sending process ended, or took too long")
        result: dict[str, Any] = json.loads(answer)
        assert "error" not in result, result["error"]
        return result

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.worker"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[1])
        return self._process

    def send(self, target: Target, data: DataSet, *, associations: int = 1, how: str = "gateway") -> Window:
        """Send `data` over `associations` at once."""
        tls = None if target.tls is None else {name: str(path) for name, path in target.tls.items()}
        result = self.do(
            what="send",
            how=how,
            port=target.port,
            ae_title=target.ae_title,
            tls=tls,
            shares=[[str(path) for path in share] for share in data.shares(associations)],
        )
        assert result["stored"] == data.count, f"{result['stored']:g} of {data.count} were stored"
        return Window(result["began_at"], result["seconds"], Cost(result["cpu_s"], result["peak_mib"], result["grown_mib"]))

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        with process, contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
            watchdog = threading.Timer(5.0, process.kill)
            watchdog.start()
            process.wait()
            watchdog.cancel()


@contextmanager
def worker() -> Iterator[Worker]:
    """Have a worker until the context ends."""
    made = Worker()
    try:
        yield made
    finally:
        made.close()
