"""Latency of one small operation: a C-ECHO, an idle association, the way of one instance through the gateway."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.control import client
from benchmarks.harness import CORE, MS, PEAK, Bench, Goal, Metrics, Row
from benchmarks.process import Meter
from benchmarks.receivers import Receiver
from benchmarks.rows_send import long_lived
from gateway.control.client import Client
from tests.support.gateway import dicom_destination
from tests.support.load import Template
from tests.support.raw import VERIFICATION, RawRequestor
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import wait_until

IDLE = 200
IDLE_STOCK = 10
SETTLE_S = 1.0
ARRIVAL_S = 10.0

KEPT_OPEN_S = 60.0
CLOSED_AT_ONCE_S = 0.01

UID_PREFIX = "1.2.826.0.1.3680043.10.1338.600"

Opened = Callable[[Path], AbstractContextManager[Receiver]]


@contextmanager
def _gateway(folder: Path) -> Iterator[Receiver]:
    with receivers.gateway(folder) as (receiver, _):
        yield receiver


def _echo(opened: Opened, how: str, bench: Bench, folder: Path) -> Metrics:
    with opened(folder) as receiver:
        target = receiver.target
        result = long_lived(bench, how).do(
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
        threading.Event().wait(SETTLE_S)
        meter, began = Meter(receiver.pid), time.perf_counter()
        threading.Event().wait(bench.data.sizes.idle_s)
        cost = meter.stop()
        return {CORE: 100 * cost.cpu_s / (time.perf_counter() - began), PEAK: cost.peak_mib or 0.0}


@dataclass
class _Sink:
    """A destination that notes when the command of a C-STORE reached it: the delivery has then begun."""

    begun: threading.Event = field(default_factory=threading.Event)
    at: float = 0.0

    def note(self, _nth: int) -> None:
        self.at = time.perf_counter()
        self.begun.set()

    def milliseconds_since(self, moment: float) -> float:
        """Wait for the delivery to begin, and return how long after `moment` it did."""
        assert self.begun.wait(ARRIVAL_S), "nothing was delivered"
        self.begun.clear()
        return (self.at - moment) * 1000


def _added(idle_close_s: float, bench: Bench, folder: Path) -> Metrics:
    """Time single instances from their last byte to the first of their delivery; the gateway is idle before each."""
    template, sink, times = Template(folder / "template", rows=512), _Sink(), []
    closing = idle_close_s == CLOSED_AT_ONCE_S
    with ScriptedScp(interrupt=sink.note).running() as peer:
        destination = dicom_destination(peer.port, verify="status", associations=1, idle_close_s=idle_close_s)
        with (
            receivers.gateway(folder, destinations={"peer": destination}) as (receiver, gateway),
            client(gateway) as asked,
            RawRequestor(receiver.target.port) as sender,
        ):
            for number in range(bench.data.sizes.singles):
                uid = f"{UID_PREFIX}.{number}"
                times.append(sink.milliseconds_since(_sent(sender, uid, template.instance(uid))))
                _idle_again(asked, number + 1)
                if closing:
                    wait_until(lambda: peer.released == peer.associations, "association released", pause_s=0.005)
    return {MS: statistics.median(times[len(times) // 10 :])}


def _sent(sender: RawRequestor, uid: str, instance: bytes) -> float:
    """Send an instance and return when its last byte was in the socket."""
    sender.send(sender.request(uid))
    for part in sender.fragments([instance]):
        sender.send(part)
    at = time.perf_counter()
    assert sender.response() == 0
    return at


def _idle_again(asked: Client, delivered: int) -> None:
    """Wait until the gateway recorded what it delivered."""

    def settled() -> bool:
        destinations = asked.get("/status")["destinations"]
        return bool(sum(destination["settled"].get("verified", 0) for destination in destinations) >= delivered)

    wait_until(settled, "delivered and recorded", pause_s=0.01)


ROWS = [
    Row(
        "small-echo-scp",
        "C-ECHO round trip, asked by the gateway's requestor",
        {
            "gateway": partial(_echo, _gateway, "gateway"),
            "storescp": partial(_echo, receivers.storescp, "gateway"),
            "pynetdicom": partial(_echo, receivers.stock_scp, "gateway"),
        },
        (Goal(MS, 0.4, at_least=False), Goal(MS, None, "pynetdicom", at_least=False)),
    ),
    Row(
        "small-echo-scu",
        "C-ECHO round trip, to storescp",
        {
            "gateway": partial(_echo, receivers.storescp, "gateway"),
            "pynetdicom": partial(_echo, receivers.storescp, "pynetdicom"),
        },
        (Goal(MS, 0.4, at_least=False), Goal(MS, None, "pynetdicom", at_least=False)),
    ),
    Row(
        "small-idle",
        f"{IDLE} idle associations (stock pynetdicom: {IDLE_STOCK})",
        {"gateway": partial(_idle, _gateway, IDLE), "pynetdicom": partial(_idle, receivers.stock_scp, IDLE_STOCK)},
        (Goal(CORE, 1.0, at_least=False),),
        once=frozenset({"pynetdicom"}),
    ),
    Row(
        "small-latency",
        "Added latency, last byte in to first byte out",
        {"gateway": partial(_added, KEPT_OPEN_S), "gateway, dialling first": partial(_added, CLOSED_AT_ONCE_S)},
        (Goal(MS, 5.0, at_least=False), Goal(MS, 5.0, at_least=False, party="gateway, dialling first")),
    ),
]
