"""Sending: the gateway's requestor and its whole delivery, beside dcmsend, storescu and stock pynetdicom."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.control import act, all_delivered
from benchmarks.datasets import DataSet
from benchmarks.harness import CPU_GB, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.senders import NODELAY, STOCK, Target, Window, Worker, dcmtk, worker
from gateway.ledger.deliveries.queue import Action
from tests.support.gateway import dicom_destination
from tests.support.ports import free_port

PYTHON = ("gateway", "pynetdicom")


def long_lived(bench: Bench, how: str) -> Worker:
    """Return the process that sends with the gateway's requestor or with pynetdicom, the same in every round."""
    return bench.once(f"worker {how}", lambda: bench.kept.enter_context(worker()))


def send(how: str, bench: Bench, target: Target, data: DataSet, folder: Path, senders: int = 1) -> Window:
    """Send `data` with the gateway's requestor, stock pynetdicom or a program of DCMTK, after a few instances to warm up."""
    warm = bench.data.warm
    if how in PYTHON:
        process = long_lived(bench, how)
        process.send(target, warm, how=how)
        bench.settle()
        return process.send(target, data, associations=senders, how=how)
    environ = STOCK if how.startswith("stock ") else NODELAY
    program = how.removeprefix("stock ")
    dcmtk(program, target, data=warm, folder=folder)
    bench.settle()
    return dcmtk(program, target, data=data, folder=folder, senders=senders, environ=environ)


def _to_storescp(how: str, senders: int, secure: bool, bench: Bench, folder: Path) -> Metrics:
    many = ("--fork",) if senders > 1 else ()
    with receivers.storescp(folder, "--ignore", *many, tls=bench.tls if secure else None) as receiver:
        window = send(how, bench, receiver.target, bench.data.ct, folder, senders)
    return transfer(bench.data.ct, window.seconds, window.cost)


def _to_orthanc(how: str, senders: int, nodelay: bool, bench: Bench, folder: Path) -> Metrics:
    """Send to Orthanc; who stalls 40 ms an instance has fewer of the same slices, because what is compared are rates."""
    data = bench.data.stalled if how.startswith("stock ") else bench.data.ct
    with receivers.orthanc(folder, environ=NODELAY if nodelay else STOCK) as (receiver, _):
        window = send(how, bench, receiver.target, data, folder, senders)
        receiver.has(bench.data.warm.count + data.count)
    return transfer(data, window.seconds, window.cost)


def _backlog(senders: int, bench: Bench, folder: Path) -> Metrics:
    """Have the gateway deliver what it holds, from the moment that a person releases it until its ledger has every outcome."""
    data, port = bench.data.ct, free_port()
    destination = dicom_destination(port, ae_title="STORESCP", verify="status", associations=senders)
    with receivers.gateway(folder, destinations={"storescp": destination}) as (receiver, gateway):
        dcmtk("dcmsend", receiver.target, data=data, folder=folder, senders=4)
        receiver.has(data.count)
        act(gateway, Action.HOLD)
        many = ("--fork",) if senders > 1 else ()
        with receivers.storescp(folder, "--ignore", *many, port=port):
            bench.settle()
            meter, began = Meter(receiver.pid), time.perf_counter()
            act(gateway, Action.RETRY)
            all_delivered(gateway, data.count)
            return transfer(data, time.perf_counter() - began, meter.stop())


def _parties(senders: int) -> dict[str, Party]:
    parties: dict[str, Party] = {
        how: partial(_to_storescp, how, senders, False) for how in ("gateway", "dcmsend", "storescu", "pynetdicom")
    }
    return parties | {"gateway, from its ledger": partial(_backlog, senders)}


_ONCE = frozenset({"storescu", "pynetdicom"})
_GOALS = (
    Goal(RATE, 0.9, "dcmsend"),
    Goal(CPU_GB, 0.75, "dcmsend", at_least=False),
    Goal(RATE, None, "dcmsend", party="gateway, from its ledger"),
)

ROWS = [
    Row("send-ct-1", "Send CT to storescp --ignore, 1 association", _parties(1), _GOALS, once=_ONCE),
    Row("send-ct-4", "Send CT to storescp --ignore, 4 associations", _parties(4), _GOALS, once=_ONCE),
    Row(
        "send-tls-1",
        "Send CT to storescp over mutual TLS, 1 association",
        {how: partial(_to_storescp, how, 1, True) for how in ("gateway", "storescu")},
        (Goal(RATE, 1.0, "storescu"),),
    ),
    Row(
        "send-orthanc-stock",
        "Send CT to a stock Orthanc (Nagle), 1 association",
        {how: partial(_to_orthanc, how, 1, False) for how in ("gateway", "stock dcmsend")},
        (Goal(RATE, 8.0, "stock dcmsend"),),
    ),
    Row(
        "send-orthanc-4",
        "Send CT to Orthanc, 4 associations",
        {how: partial(_to_orthanc, how, 4, True) for how in ("gateway", "dcmsend")},
        (Goal(RATE, None, "dcmsend"),),
    ),
]
