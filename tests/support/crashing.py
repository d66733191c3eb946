"""Gateways that are killed, or whose system calls fail, at a chosen call: a fork server and ``strace`` fault injection."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway import Gateway
from tests.support.ports import listens
from tests.support.processes import Running, state_of
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fault:
    """A fault at the `nth` time that any one thread makes one of `calls`: SIGKILL before the call, or `error` in place of it.

    With `onwards` each later call fails too.
    """

    name: str
    calls: tuple[str, ...]
    nth: int
    error: str = ""
    onwards: bool = False

    @property
    def options(self) -> list[str]:
        """The options of strace for it."""
        # A question mark: no error where this architecture has no such call.
        calls = ",".join(call if call == "all" else f"?{call}" for call in self.calls)
        effect = f"error={self.error}" if self.error else "signal=SIGKILL"
        return ["-e", f"trace={calls}", "-e", f"inject={calls}:{effect}:when={self.nth}{'+' if self.onwards else ''}"]


class Crashable:
    """One gateway process from the fork server."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._descriptor = os.pidfd_open(pid)

    def ended(self, deadline_s: float = 0.0) -> bool:
        """Tell whether it has ended, waiting up to `deadline_s` for that."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(deadline_s * 1000))

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """SIGKILL and wait for the end."""
        self.signal(signal.SIGKILL)
        assert self.ended(20.0), f"process {self.pid} outlives SIGKILL"

    def close(self) -> None:
        self.kill()
        os.close(self._descriptor)


class ForkServer:
    """A process that has everything imported and forks gateways; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkserver"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready"

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _fork(self, gateway: Gateway, log: Path) -> Crashable:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"argv": ["serve", "--config", str(gateway.config)], "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return Crashable(int(self._answer()), log)

    @contextmanager
    def serve(self, gateway: Gateway, fault: Fault | None = None, *, trace: Path | None = None) -> Iterator[Crashable]:
        """Serve, with `fault` injected where one is given, until the context ends, which kills what is left of it.

        `trace` is a file for what strace saw. Does not wait for the listener: it may never come.
        """
        process = self._fork(gateway, gateway.folder / "serve.log")
        try:
            _wait_stopped(process.pid)
            if fault is None:
                process.signal(signal.SIGCONT)
                yield process
            else:
                options: Sequence[str | Path] = ["-f", "-o", trace or os.devnull, *fault.options, "-p", str(process.pid)]
                with Running(["strace", *options], stop_signal=signal.SIGKILL) as tracer:
                    tracer.wait_for_line("attached")
                    process.signal(signal.SIGCONT)
                    yield process
                    process.kill()
        finally:
            process.close()


def _wait_stopped(pid: int) -> None:
    wait_until(lambda: state_of(pid) in ("T", "Z", ""), f"process {pid} stopping itself", pause_s=0.002)
    assert state_of(pid) == "T", f"process {pid} ended before it was let go on"


def listening(gateway: Gateway, process: Crashable, *, deadline_s: float = 30.0) -> bool:
    """Wait until the gateway listens or has ended; tells whether it listens."""
    wait_until(lambda: process.ended() or listens(gateway.port), "listening or ended", deadline_s=deadline_s)
    return not process.ended()


@contextmanager
def failing(pid: int, fault: Fault) -> Iterator[None]:
    """Inject `fault` into a process that runs, until the context ends; the process goes on undisturbed then."""
    with Running(["strace", "-f", "-o", os.devnull, *fault.options, "-p", str(pid)]) as tracer:
        tracer.wait_for_line("attached")
        yield
