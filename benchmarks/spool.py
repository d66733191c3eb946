"""Cost of a durable instance in the spool: a record of its log, against a file of its own with fsync and rename.

Run as ``python -m benchmarks.spool [FOLDER]``; FOLDER is on the disk to be measured. Both are measured by turns, `TURNS` times; the
table has the medians. CPU is user and system time of this process, which does nothing else.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.core.domain import InstanceIdentity, Provenance
from gateway.spool import Spool

TURNS = 5
THREADS = (1, 4, 16)
SIZES = {"20 KB": 20_000, "525 KB": 525_000}
BYTES_A_TURN = {"20 KB": 20_000_000, "525 KB": 250_000_000}
PDU_BYTES = 131_072

IDENTITY = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.10.1338.1", "1.2.840.10008.1.2.1")
PROVENANCE = Provenance("SENDER", "GATEWAY", "127.0.0.1", "a-1")
HEAD = bytes(600)

Store = Callable[[int, list[memoryview]], None]
"""Stores one instance, given the number of the thread and the data set in fragments."""


def in_files(folder: Path) -> Store:
    """Return what stores each instance in a file of its own."""
    folders = [folder / f"{number:02}" for number in range(max(THREADS))]
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)

    def store(thread: int, fragments: list[memoryview]) -> None:
        partial, final = folders[thread] / "partial", folders[thread] / f"{time.monotonic_ns()}.dcm"
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.writev(descriptor, [HEAD, *fragments])
        os.fsync(descriptor)
        partial.rename(final)
        parent = os.open(folders[thread], os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
        os.close(descriptor)

    return store


def in_log(spool: Spool) -> Store:
    """Return what stores each instance in the log, and releases it again."""

    def store(_thread: int, fragments: list[memoryview]) -> None:
        writer = spool.create(IDENTITY, PROVENANCE)
        writer.write(fragments)
        spool.release(writer.commit().location)

    return store


def measured(store: Store, threads: int, size: int, count: int) -> tuple[float, float]:
    """Return instances a second and CPU seconds an instance of `count` instances stored by each of `threads`."""
    data = memoryview(os.urandom(size))
    fragments = [data[start : start + PDU_BYTES] for start in range(0, size, PDU_BYTES)]

    def work(number: int) -> None:
        for _ in range(count):
            store(number, fragments)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    began, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = threads * count
    return total / (time.perf_counter() - began), (time.process_time() - cpu) / total


def row(folder: Path, threads: int, name: str) -> str:
    """Measure both ways by turns and return a line of the table."""
    size, count = SIZES[name], max(1, BYTES_A_TURN[name] // SIZES[name] // threads)
    found: dict[str, list[tuple[float, float]]] = {"file": [], "log": []}
    for _turn in range(TURNS):
        with tempfile.TemporaryDirectory(dir=folder) as files:
            found["file"].append(measured(in_files(Path(files)), threads, size, count))
        with tempfile.TemporaryDirectory(dir=folder) as log, Spool(Path(log) / "spool", reserve_bytes=0) as spool:
            for _ in range(2):  # the first time fills fresh segments; the second one those that were freed
                result = measured(in_log(spool), threads, size, count)
                spool.tidy()
            found["log"].append(result)
    cells = []
    for results in found.values():
        rate, cpu = (statistics.median(values) for values in zip(*results, strict=True))
        cells.append(f"{rate:,.0f} · {rate * size / 1e6:,.0f} · {cpu * 1e9 / size:.2f}")
    return f"| {threads} · {name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Print the table: instances a second, MB/s, CPU seconds a GB."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("| threads · data set | a file each | the log |\n|---|---|---|")
    for threads in THREADS:
        for name in SIZES:
            print(row(folder, threads, name), flush=True)


if __name__ == "__main__":
    main()
