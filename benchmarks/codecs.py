"""A process that compresses a data set into JPEG 2000 Lossless and says what that took.

Run as ``python -m benchmarks.codecs HOW FOLDER OUTPUT``: HOW is a key of `_PARTIES`, FOLDER a data set's, OUTPUT where files may be
written. Starting it, loading the codec and a first frame for each worker are not in the figures, but for "gateway, cold", whose
workers are started in the measurement so that all of their memory is in it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pydicom

from benchmarks.datasets import DataSet
from benchmarks.process import Meter
from gateway.codec.dataset.extent import Extent
from gateway.codec.transcode import transcode
from gateway.codec.workers.pool import Pool
from gateway.codec.workers.worker import NICENESS
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, J2K_LOSSLESS
from tests.support.sources import dataset_of

Figures = dict[str, float | None]

FIGURES = '{"instances"'
"""The beginning of the line with the figures."""


def _gateway(files: Sequence[Path], output: Path, *, warm: bool) -> Figures:
    """Transcode as delivery does: one thread more than the pool has workers, each instance into a file of its own, not synced."""
    with Pool() as pool, ThreadPoolExecutor(pool.workers + 1) as threads:
        make = partial(_transcoded, pool, output)
        if warm:
            list(threads.map(make, [files[0]] * (2 * pool.workers)))
        return _measured(lambda: len(list(threads.map(make, files))))


def _transcoded(pool: Pool, output: Path, path: Path) -> None:
    with dataset_of(path) as source, tempfile.NamedTemporaryFile(dir=output, delete=False) as file:
        extent = Extent(source.fileno(), source.offset, source.length)
        transcode(extent, EXPLICIT_LITTLE, J2K_LOSSLESS, file.fileno(), pool)


def _bare(files: Sequence[Path], _output: Path, *, prove: bool) -> Figures:
    """Encode the same frames with nothing around the codec: a process for each core, which has them in memory."""
    context = multiprocessing.get_context("spawn")
    turn = context.Value("l", 0)
    connections = []
    for _ in os.sched_getaffinity(0):
        ours, theirs = context.Pipe()
        context.Process(target=_codec, args=(theirs, files, prove, turn), daemon=True).start()
        theirs.close()
        connections.append(ours)
    for connection in connections:
        connection.recv()

    def work() -> int:
        for connection in connections:
            connection.send("begin")
        return sum(connection.recv() for connection in connections)

    return _measured(work)


def _codec(connection: Connection, files: Sequence[Path], prove: bool, turn: Synchronized[int]) -> None:
    """Take one instance's frame after the other while there are any, and tell how many they were."""
    # Scheduled as a worker of the gateway's is, so that what else the machine does takes as much from both.
    os.setsid()
    os.nice(NICENESS)
    datasets = [pydicom.dcmread(path) for path in files]
    frames = [(dataset.PixelData, dataset.Columns, dataset.Rows) for dataset in datasets]
    _encode(*frames[0], prove=prove)
    connection.send("ready")
    connection.recv()
    done = 0
    while (number := _next(turn)) < len(frames):
        _encode(*frames[number], prove=prove)
        done += 1
    connection.send(done)


def _next(turn: Synchronized[int]) -> int:
    with turn.get_lock():
        number = turn.value
        turn.value += 1
    return number


def _encode(pixels: bytes, columns: int, rows: int, *, prove: bool) -> None:
    from openjpeg.utils import decode_pixel_data, encode_buffer

    encoded = encode_buffer(pixels, columns, rows, 1, 16, False, photometric_interpretation=0, use_mct=False)
    if prove:
        assert decode_pixel_data(encoded, version=2) == pixels


def _measured(work: Callable[[], int]) -> Figures:
    """Return what `work` took, which returns how many instances it did; its processes are there until this returns."""
    meter, began = Meter(os.getpid()), time.perf_counter()
    instances = work()
    seconds, cost = time.perf_counter() - began, meter.stop()
    return {"instances": instances, "seconds": seconds, "cpu_s": cost.cpu_s, "peak_mib": cost.peak_mib, "grown_mib": cost.grown_mib}


_PARTIES: dict[str, Callable[[Sequence[Path], Path], Figures]] = {
    "gateway": partial(_gateway, warm=True),
    "gateway, cold": partial(_gateway, warm=False),
    "bare codec": partial(_bare, prove=True),
    "bare codec, encode only": partial(_bare, prove=False),
}


def main(how: str, folder: str, output: str) -> None:
    """Do it and print the figures as JSON."""
    # Ending the run early ends its processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(json.dumps(_PARTIES[how](DataSet("", Path(folder), "").files, Path(output))))


if __name__ == "__main__":
    main(*sys.argv[1:])
