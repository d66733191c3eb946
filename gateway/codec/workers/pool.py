"""The worker processes: as many as there are cores, each working on one frame at a time.

Codecs are never run in this process: OpenJPEG's encoder crashes where two threads use it at once, and a hostile codestream
may crash, hang or exhaust any of them. A worker that dies costs the frame that it worked on and is replaced when the next
frame comes.
Workers are started when there is work, as new programs: they inherit nothing but one socket and one file for results.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import gateway
from gateway.codec.dataset.encapsulation import Range
from gateway.codec.workers import wire
from gateway.codec.workers.order import Order
from gateway.core.errors import CodecError, CodecFailed, GatewayStopping, NotTranscodable, PixelsDiffer

Result = TypeVar("Result")
Deliver = Callable[[int, int], Result]
"""`deliver(fd, length)` takes a result, which is the first `length` bytes of the file `fd`, before it is overwritten."""

_START_TIMEOUT_S = 60.0
_SECONDS_BASE = 20
_SAMPLES_PER_SECOND = 100_000
"""The slowest codec does some thirty times as many, and a busy machine may take its share."""

_WALL_CLOCK_FACTOR = 10
_ERRORS: dict[str, type[CodecError]] = {each.__name__: each for each in (NotTranscodable, PixelsDiffer, CodecFailed)}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one frame: memory beyond that of an idle worker, and CPU time (None: by the number of its samples)."""

    memory_bytes: int = 2 * 1024**3
    seconds: int | None = None

    def seconds_for(self, order: Order) -> int:
        """Return the CPU seconds that the work `order` may take."""
        samples = order.pixel.rows * order.pixel.columns * order.pixel.samples
        return self.seconds or _SECONDS_BASE + samples // _SAMPLES_PER_SECOND


class Pool:
    """Workers that share what all callers give them to do, first come first served: a context manager, for any thread."""

    def __init__(self, workers: int | None = None, limits: Limits | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limits = limits or Limits()
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="codec")
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._running: set[_Worker] = set()
        self._closed = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, order: Order, fd: int, ranges: Sequence[Range], deliver: Deliver[Result]) -> Future[Result]:
        """Have the bytes at `ranges` of the file `fd` worked on; `deliver` takes the result, on a thread of the pool.

        `fd` must stay open until the future is done. The future raises NotTranscodable, PixelsDiffer or CodecFailed,
        GatewayStopping where the pool is closed meanwhile, and what `deliver` raises.

        Raises:
            GatewayStopping: the pool is closed.
        """
        try:
            return self._threads.submit(self._work, order, fd, ranges, deliver)
        except RuntimeError:
            raise GatewayStopping("the codec is closed") from None

    def close(self) -> None:
        """End the workers, whatever they are doing, and wait until they are gone."""
        with self._lock:
            self._closed = True
            for worker in self._running:
                worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._running:
            worker.end()
        self._running.clear()

    def _work(self, order: Order, fd: int, ranges: Sequence[Range], deliver: Deliver[Result]) -> Result:
        worker = self._worker()
        try:
            length = worker.work(order, fd, ranges, self.limits.seconds_for(order))
        except _WorkerLost as lost:
            self._discard(worker)
            if self._closed:
                raise GatewayStopping("the codec is closed") from None
            raise CodecFailed(str(lost)) from None
        return deliver(worker.result, length)

    def _worker(self) -> _Worker:
        """Return this thread's worker, started where there is none."""
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            with self._lock:
                if self._closed:
                    raise GatewayStopping("the codec is closed")
                worker = _Worker(self.limits.memory_bytes)
                self._running.add(worker)
            self._mine.worker = worker
        return worker

    def _discard(self, worker: _Worker) -> None:
        self._mine.worker = None
        worker.kill()
        with self._lock:
            if worker in self._running and not self._closed:
                self._running.discard(worker)
                worker.end()


class _WorkerLost(Exception):
    """A worker gave no answer; the message says why."""


class _Worker:
    """One worker process, its socket and the file that it writes results to. Used by one thread; `kill` from any."""

    def __init__(self, memory_bytes: int) -> None:
        self._socket, theirs = socket.socketpair()
        self.result = _result_file()
        self._ready = False
        numbers = (theirs.fileno(), self.result)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gateway.codec.workers.worker", *map(str, numbers), str(memory_bytes)],
                pass_fds=numbers,
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def work(self, order: Order, fd: int, ranges: Sequence[Range], seconds: int) -> int:
        """Return how many bytes of result the order made. Raises _WorkerLost, NotTranscodable, PixelsDiffer, CodecFailed."""
        request = {"order": order.as_dict(), "ranges": list(ranges), "seconds": seconds}
        try:
            if not self._ready:
                self._answer(_START_TIMEOUT_S)
                self._ready = True
            self._socket.settimeout(_START_TIMEOUT_S)
            wire.send(self._socket, request, [fd])
            answer = self._answer(_WALL_CLOCK_FACTOR * seconds)
        except TimeoutError:
            raise _WorkerLost("the codec gave no answer in time") from None
        except (OSError, ValueError):
            raise _WorkerLost(self._cause(seconds)) from None
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["message"])
        return int(answer["length"])

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        self._socket.settimeout(timeout_s)
        received = wire.receive(self._socket)
        if received is None:
            raise ConnectionResetError
        return received[0]

    def _cause(self, seconds: int) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_START_TIMEOUT_S)
            if code == -signal.SIGXCPU:
                return f"the codec took more than {seconds} seconds for one frame"
            return f"the codec crashed ({'signal' if code < 0 else 'exit code'} {abs(code)})"
        return "the codec stopped answering"

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    def end(self) -> None:
        """Reap the process, which was killed, and close what belongs to it."""
        self._process.wait()
        self._socket.close()
        os.close(self.result)


def _result_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("codec")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _environment() -> dict[str, str]:
    """Return what a worker needs to find its code; the gateway's own environment may hold secrets."""
    root = str(Path(gateway.__file__).parents[1])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPJ_NUM_THREADS"), "1")
    return {"PYTHONPATH": path, "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", **threads}
