"""Sending: the gateway's requestor and its whole delivery, beside dcmsend, storescu and stock pynetdicom."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.control import act, delivered
from benchmarks.datasets import DataSet
from benchmarks.harness import CPU_GB, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.senders import NODELAY, STOCK, Target, Window, Worker, dcmtk, worker
from gateway.ledger.queue import Action
from tests.support.gateway import dicom_destination
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def long_lived(bench: Bench) -> Worker:
    """Return the process that sends for us, the same in every round."""
    return bench.once("worker", lambda: bench.kept.enter_context(worker()))


def send(how: str, bench: Bench, target: Target, data: DataSet, folder: Path, senders: int = 1) -> Window:
    """Send `data` with the gateway's requestor, stock pynetdicom or a program of DCMTK, after a few instances to warm up."""
    if how in ("gateway", "pynetdicom"):
        process = long_lived(bench)
        process.send(target, bench.data.warm, how=how)
        bench.settle()
        return process.send(target, data, associations=senders, how=how)
    environ = STOCK if how.startswith("stock ") else NODELAY
    program = how.removeprefix("stock ")
    dcmtk(program, target, bench.data.warm, folder, environ=environ)
    bench.settle()
    return dcmtk(program, target, data, folder, senders=senders, environ=environ)


def _to_storescp(how: str, senders: int, bench: Bench, folder: Path) -> Metrics:
    many = ("--fork",) if senders > 1 else ()
    data = bench.data.ct
    with receivers.storescp(folder, "--ignore", *many) as receiver:
        window = send(how, bench, receiver.target, data, folder, senders)
    return transfer(data, window.seconds, window.cost)


def _to_storescp_tls(how: str, bench: Bench, folder: Path) -> Metrics:
    data = bench.data.ct
    with receivers.storescp(folder, "--ignore", tls=bench.tls) as receiver:
        window = send(how, bench, receiver.target, data, folder)
    return transfer(data, window.seconds, window.cost)


def _to_orthanc(how: str, senders: int, stock: bool, bench: Bench, folder: Path) -> Metrics:
    data = bench.data.nagle if stock else bench.data.slow
    with receivers.orthanc(folder, environ=STOCK if stock else NODELAY) as (receiver, _):
        window = send(how, bench, receiver.target, data, folder, senders)
    return transfer(data, window.seconds, window.cost)


def _backlog(senders: int, bench: Bench, folder: Path) -> Metrics:
    """Have the gateway deliver what it holds, from the moment that a person releases it."""
    data, port = bench.data.ct, free_port()
    destination = dicom_destination(port, ae_title="STORESCP", verify="status", associations=senders)
    with receivers.gateway(folder, destinations={"storescp": destination}) as (receiver, gateway):
        dcmtk("dcmsend", receiver.target, data, folder, senders=4)
        act(gateway, Action.HOLD)
        many = ("--fork",) if senders > 1 else ()
        with receivers.storescp(folder, "--ignore", *many, port=port):
            bench.settle()
            meter, began = Meter(receiver.pid), time.perf_counter()
            act(gateway, Action.RETRY)
            wait_until(lambda: delivered(gateway) == data.count, "everything delivered", deadline_s=300, pause_s=0.02)
            return transfer(data, time.perf_counter() - began, meter.stop())


def _parties(senders: int) -> dict[str, Party]:
    return {how: partial(_to_storescp, how, senders) for how in ("gateway", "dcmsend", "storescu", "pynetdicom")} | {
        "gateway, ledger and all": partial(_backlog, senders)
    }


_GOALS = (Goal(RATE, 0.9, "dcmsend"), Goal(CPU_GB, 0.75, "dcmsend", at_least=False))

ROWS = [
    Row("send-ct-1", "Send CT to storescp --ignore, 1 association", _parties(1), _GOALS),
    Row("send-ct-4", "Send CT to storescp --ignore, 4 associations", _parties(4), _GOALS),
    Row(
        "send-tls-1",
        "Send CT to storescp over mutual TLS, 1 association",
        {how: partial(_to_storescp_tls, how) for how in ("gateway", "storescu")},
        (Goal(RATE, 1.0, "storescu"),),
    ),
    Row(
        "send-orthanc-stock",
        "Send CT to a stock Orthanc (Nagle), 1 association",
        {how: partial(_to_orthanc, how, 1, True) for how in ("gateway", "stock dcmsend")},
        (Goal(RATE, 8.0, "stock dcmsend"),),
    ),
    Row(
        "send-orthanc-4",
        "Send CT to Orthanc with TCP_NODELAY, 4 associations",
        {how: partial(_to_orthanc, how, 4, False) for how in ("gateway", "dcmsend")},
    ),
]
