"""Senders: DCMTK's, stock pynetdicom's, and the gateway's requestor in a process that lives on between two runs.

A window begins with the first A-ASSOCIATE-RQ and ends when every sender has its last response: programs start and look
through their files before it. CPU is that of whole processes for DCMTK, of the window for processes that live on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.datasets import DataSet
from benchmarks.process import Cost
from tests.support.certificates import Files
from tests.support.ports import HOST

NODELAY = {"TCP_NODELAY": "1"}
STOCK = {"TCP_NODELAY": "0"}
"""As DCMTK and Orthanc come: with Nagle's algorithm."""

DEADLINE_S = 600.0

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
    """How long sending took, and what it cost the senders."""

    seconds: float
    cost: Cost


@dataclass(frozen=True)
class Target:
    """Whom to send to."""

    port: int
    ae_title: str = "ANY-SCP"
    tls: Files | None = None


def dcmtk(
    program: str, target: Target, data: DataSet, folder: Path, *, senders: int = 1, environ: Mapping[str, str] = NODELAY
) -> Window:
    """Send `data` with as many processes of ``dcmsend`` or ``storescu`` as `senders`, each its own part of it.

    Raises:
        AssertionError: not every instance was answered with success.
    """
    logs = [folder / f"{program}-{number}.log" for number in range(senders)]
    started = [_start(program, target, share, log, environ) for share, log in zip(data.shares(senders), logs, strict=True) if share]
    usages = [os.wait4(process.pid, 0) for process in started]
    for process, (_, status, _) in zip(started, usages, strict=True):
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"{program} ended with {process.returncode}"
    texts = [log.read_text() for log in logs if log.exists()]
    stored = sum(len(_SUCCESS.findall(text)) for text in texts)
    assert stored == data.count, f"{program}: {stored} of {data.count} were stored"
    cpu_s = sum(usage.ru_utime + usage.ru_stime for _, _, usage in usages)
    return Window(max(map(_last, texts)) - min(map(_first, texts)), Cost(cpu_s))


def _start(program: str, target: Target, share: Sequence[Path], log: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log.unlink(missing_ok=True)
    config = log.with_suffix(".cfg")
    config.write_text(_LOG.format(path=log))
    own = ["-nh", "-nuc", "-dn"] if program == "dcmsend" else ["-R"]
    secure: list[str | Path] = []
    if target.tls is not None:
        secure = ["+tls", target.tls["key"], target.tls["certificate"], "+cf", target.tls["ca"]]
    command = [program, "-lc", config, "+sd", "+r", *own, "-aec", target.ae_title, "-pdu", "131072", "--max-send-pdu", "131072"]
    return subprocess.Popen(
        [str(part) for part in [*command, *secure, HOST, str(target.port), *share]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(environ),
    )


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
    """A process of `benchmarks.worker` that takes one command after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, **command: Any) -> dict[str, float]:
        """Have one command done and return its result.

        Raises:
            AssertionError: it failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the worker ended"
        result: dict[str, Any] = json.loads(answer)
        assert "error" not in result, result["error"]
        return result

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
        return Window(result["seconds"], Cost(result["cpu_s"], result["peak_mib"], result["grown_mib"]))


@contextmanager
def worker() -> Iterator[Worker]:
    """Run a worker until the context ends."""
    command = [sys.executable, "-m", "benchmarks.worker"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            yield Worker(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(DEADLINE_S)
