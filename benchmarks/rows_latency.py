"""What one small thing takes: a C-ECHO, an idle association, the way of one instance through the gateway."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.harness import CORE, MS, PEAK, Bench, Goal, Metrics, Row
from benchmarks.process import Meter
from benchmarks.receivers import Receiver
from benchmarks.rows_send import long_lived
from tests.support.gateway import dicom_destination
from tests.support.load import Template
from tests.support.raw import VERIFICATION, RawRequestor
from tests.support.scripted_scp import ScriptedScp

IDLE = 200
IDLE_STOCK = 10
ARRIVAL_S = 10.0

Opened = Callable[[Path], AbstractContextManager[Receiver]]


@contextmanager
def _gateway(folder: Path) -> Iterator[Receiver]:
    with receivers.gateway(folder) as (receiver, _):
        yield receiver


def _echo(opened: Opened, how: str, bench: Bench, folder: Path) -> Metrics:
    with opened(folder) as receiver:
        target = receiver.target
        result = long_lived(bench).do(
            what="echo", how=how, port=target.port, ae_title=target.ae_title, count=bench.data.sizes.echoes
        )
        return {MS: result["ms"]}


def _idle(opened: Opened, associations: int, bench: Bench, folder: Path) -> Metrics:
    """Measure associations that do nothing; what opening them cost is not counted."""
    with opened(folder) as receiver, ExitStack() as stack:
        called = receiver.target.ae_title
        contexts = ((1, VERIFICATION, ("1.2.840.10008.1.2",)),)
        for _ in range(associations):
            peer = stack.enter_context(RawRequestor(receiver.target.port, called=called, contexts=contexts))
            assert peer.accepted, "not associated"
        threading.Event().wait(1.0)
        meter, began = Meter(receiver.pid), time.perf_counter()
        threading.Event().wait(bench.data.sizes.idle_s)
        cost = meter.stop()
        return {CORE: 100 * cost.cpu_s / (time.perf_counter() - began), PEAK: cost.peak_mib or 0.0}


def _added(bench: Bench, folder: Path) -> Metrics:
    """Time each of a few single instances from its last byte to the first byte of its delivery, associations being open."""
    template = Template(folder / "template", rows=512)
    begun, at = threading.Event(), [0.0]

    def note(_nth: int) -> None:
        at[0] = time.perf_counter()
        begun.set()

    times = []
    with ScriptedScp(interrupt=note).running() as peer:
        destination = dicom_destination(peer.port, verify="status", associations=1, idle_close_s=60.0)
        with (
            receivers.gateway(folder, destinations={"peer": destination}) as (receiver, _),
            RawRequestor(receiver.target.port) as sender,
        ):
            for number in range(bench.data.sizes.singles):
                times.append(_single(sender, template.instance(f"1.2.826.0.1.3680043.10.1338.600.{number}"), number, begun, at))
                # The lane has to be idle again: it records what it delivered.
                threading.Event().wait(0.05)
    return {MS: statistics.median(times[len(times) // 10 :]) * 1000}


def _single(sender: RawRequestor, instance: bytes, number: int, begun: threading.Event, at: list[float]) -> float:
    begun.clear()
    sender.send(sender.request(f"1.2.826.0.1.3680043.10.1338.600.{number}"))
    for part in sender.fragments([instance]):
        sender.send(part)
    sent = time.perf_counter()
    assert sender.response() == 0
    assert begun.wait(ARRIVAL_S), "nothing was delivered"
    return at[0] - sent


ROWS = [
    Row(
        "echo-scp",
        "C-ECHO round trip, asked by the gateway's requestor",
        {
            "gateway": partial(_echo, _gateway, "gateway"),
            "storescp": partial(_echo, receivers.storescp, "gateway"),
            "pynetdicom": partial(_echo, receivers.stock_scp, "gateway"),
        },
        (Goal(MS, 0.4, at_least=False),),
    ),
    Row(
        "echo-scu",
        "C-ECHO round trip to storescp",
        {
            "gateway": partial(_echo, receivers.storescp, "gateway"),
            "pynetdicom": partial(_echo, receivers.storescp, "pynetdicom"),
        },
        (Goal(MS, 0.4, at_least=False),),
    ),
    Row(
        "idle",
        f"{IDLE} idle associations (stock pynetdicom: {IDLE_STOCK})",
        {"gateway": partial(_idle, _gateway, IDLE), "pynetdicom": partial(_idle, receivers.stock_scp, IDLE_STOCK)},
        (Goal(CORE, 1.0, at_least=False),),
    ),
    Row(
        "latency",
        "Added latency: last byte in to first byte out, one instance at a time",
        {"gateway": _added},
        (Goal(MS, 5.0, at_least=False),),
    ),
]
