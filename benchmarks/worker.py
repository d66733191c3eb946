"""A process that sends and asks as told on standard input, a JSON object a line, so that its start is in no measurement.

Either with the gateway's own requestor or with stock pynetdicom.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pynetdicom

from benchmarks.process import Meter
from gateway.association.scu.requestor import RemoteAE, Requestor, associate
from gateway.association.upper.contexts import VERIFICATION, plan_contexts
from gateway.config.settings import TlsTable
from gateway.security.tls import requestor_context
from tests.support.data import head
from tests.support.ports import HOST
from tests.support.sources import dataset_of

STOCK_TIMEOUT_S = 5

Command = dict[str, Any]
Item = tuple[Path, str, str, str]
"""A file with its SOP class, transfer syntax and SOP Instance UID."""


def _items(folders: Sequence[str]) -> list[Item]:
    items = []
    for path in sorted(path for folder in folders for path in Path(folder).iterdir()):
        found = head(path)
        assert found is not None, path
        items.append((path, str(found.SOPClassUID), str(found.file_meta.TransferSyntaxUID), str(found.SOPInstanceUID)))
    return items


def _associated(command: Command, pairs: Sequence[tuple[str, str]]) -> Requestor:
    tls = command.get("tls")
    context = None if tls is None else requestor_context(TlsTable(**{name: Path(path) for name, path in tls.items()}))
    return associate(RemoteAE(command["ae_title"], HOST, command["port"], context), "BENCHMARK", plan_contexts(pairs)[0])


def _send_ours(command: Command, items: Sequence[Item]) -> int:
    stored = 0
    with _associated(command, list(dict.fromkeys((item[1], item[2]) for item in items))) as association:
        for path, sop_class, syntax, uid in items:
            context = association.context_for(sop_class, syntax)
            assert context is not None
            with dataset_of(path) as source:
                stored += association.store(context, uid, source).status == 0
    return stored


def _send_stock(command: Command, items: Sequence[Item]) -> int:
    application = pynetdicom.AE("BENCHMARK")
    for sop_class, syntax in dict.fromkeys((item[1], item[2]) for item in items):
        application.add_requested_context(sop_class, syntax)
    association = application.associate(HOST, command["port"], ae_title=command["ae_title"], max_pdu=131072)
    assert association.is_established
    stored = sum(association.send_c_store(str(item[0])).get("Status") == 0 for item in items)
    association.release()
    return stored


def _send(command: Command) -> dict[str, float]:
    shares = [_items(folders) for folders in command["shares"]]
    send = _send_ours if command["how"] == "gateway" else _send_stock
    meter = Meter(os.getpid())
    before, began_at, began = _own_cpu_s(), time.time(), time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        stored = sum(pool.map(lambda items: send(command, items), shares))
    seconds = time.perf_counter() - began
    cpu_s, cost = _own_cpu_s() - before, meter.stop()
    took = {"began_at": began_at, "seconds": seconds, "cpu_s": cpu_s}
    return {"stored": stored, **took, "peak_mib": cost.peak_mib, "grown_mib": cost.grown_mib}


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _echo(command: Command) -> dict[str, float]:
    if command["how"] == "gateway":
        with _associated(command, [(VERIFICATION, "1.2.840.10008.1.2")]) as association:
            return _timed(association.echo, command["count"])
    application = pynetdicom.AE("BENCHMARK")
    application.add_requested_context(VERIFICATION)
    application.dimse_timeout = STOCK_TIMEOUT_S
    stock = application.associate(HOST, command["port"], ae_title=command["ae_title"])
    assert stock.is_established
    try:
        return _timed(stock.send_c_echo, command["count"])
    finally:
        stock.release()


def _timed(ask: Callable[[], Any], count: int) -> dict[str, float]:
    times: list[float] = []
    # Stock pynetdicom now and then waits for an answer that its other thread took, and aborts.
    with contextlib.suppress(RuntimeError):
        for _ in range(count):
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
    return {"ms": statistics.median(times) * 1000}


def main() -> None:
    """Do what standard input says until it ends."""
    _config = pynetdicom._config
    _config.LOG_HANDLER_LEVEL = "none"
    for line in sys.stdin:
        command = json.loads(line)
        result: dict[str, Any]
        try:
            result = {"send": _send, "echo": _echo}[command["what"]](command)
        except Exception as error:  # noqa: BLE001 - the root of the process: the benchmark reports it
            result = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
