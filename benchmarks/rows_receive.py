"""Receiving: the gateway, durable, beside storescp (which syncs nothing), Orthanc and stock pynetdicom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.datasets import DataSet, DataSets
from benchmarks.harness import CPU_GB, GROWN, INSTANCES, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.receivers import Receiver
from benchmarks.senders import NODELAY, STOCK, dcmtk
from tests.support.certificates import Files

Pick = Callable[[DataSets], DataSet]
Opened = Callable[[Path], AbstractContextManager[Receiver]]


def _receive(opened: Opened, pick: Pick, senders: int, program: str, nodelay: bool, bench: Bench, folder: Path) -> Metrics:
    """Send with DCMTK to a receiver that has taken a few instances before."""
    data, environ = pick(bench.data), NODELAY if nodelay else STOCK
    with opened(folder) as receiver:
        dcmtk(program, receiver.target, bench.data.warm, folder, environ=environ)
        bench.settle()
        meter = Meter(receiver.pid)
        window = dcmtk(program, receiver.target, data, folder, senders=senders, environ=environ)
        return transfer(data, window.seconds, meter.stop())


@contextmanager
def _gateway(folder: Path, tls: Files | None = None) -> Iterator[Receiver]:
    with receivers.gateway(folder, tls=tls) as (receiver, _):
        yield receiver


@contextmanager
def _orthanc(environ: Mapping[str, str], folder: Path) -> Iterator[Receiver]:
    with receivers.orthanc(folder, environ=environ) as (receiver, _):
        yield receiver


def _parties(pick: Pick, senders: int = 1, *, nodelay: bool = True, stock: bool = False) -> dict[str, Party]:
    environ = NODELAY if nodelay else STOCK
    many = ("--fork",) if senders > 1 else ()
    opened: dict[str, Opened] = {
        "gateway": _gateway,
        "storescp": lambda folder: receivers.storescp(folder, *many, environ=environ),
        "Orthanc": partial(_orthanc, environ),
    }
    if stock:
        opened["pynetdicom"] = receivers.stock_scp
    return {name: partial(_receive, open_, pick, senders, "dcmsend", nodelay) for name, open_ in opened.items()}


def _over_tls(opened: Callable[..., AbstractContextManager[Receiver]], senders: int, bench: Bench, folder: Path) -> Metrics:
    return _receive(partial(opened, tls=bench.tls), lambda data: data.ct, senders, "storescu", True, bench, folder)


def _tls(senders: int) -> dict[str, Party]:
    many = ("--fork",) if senders > 1 else ()
    return {
        "gateway": partial(_over_tls, _gateway, senders),
        "storescp": partial(_over_tls, lambda folder, tls: receivers.storescp(folder, *many, tls=tls), senders),
    }


ASSOCIATIONS = (1, 2, 4, 8, 16)

_CT_GOALS = (Goal(RATE, 1.0, "storescp"), Goal(CPU_GB, 1.0, "storescp", at_least=False), Goal(RATE, 4.0, "Orthanc"))

ROWS = [
    Row("receive-ct-1", "Receive CT, 1 association", _parties(lambda data: data.ct, stock=True), _CT_GOALS),
    Row("receive-ct-4", "Receive CT, 4 associations", _parties(lambda data: data.ct, 4, stock=True), _CT_GOALS),
    Row(
        "receive-nagle",
        "Receive CT from stock dcmsend (Nagle)",
        _parties(lambda data: data.nagle, nodelay=False),
        (Goal(RATE, 20.0, "storescp"), Goal(RATE, 20.0, "Orthanc")),
    ),
    Row(
        "receive-small-1",
        "Receive 20 KB instances, 1 association",
        _parties(lambda data: data.small, stock=True),
        (Goal(INSTANCES, 2.0, "storescp"), Goal(INSTANCES, 3.0, "Orthanc")),
    ),
    Row(
        "receive-small-4",
        "Receive 20 KB instances, 4 associations",
        _parties(lambda data: data.small, 4, stock=True),
        (Goal(INSTANCES, 1.0, "storescp"), Goal(INSTANCES, 3.0, "Orthanc")),
    ),
    Row("receive-j2k", "Receive CT in JPEG 2000 Lossless, 1 association", _parties(lambda data: data.j2k), _CT_GOALS),
    Row("receive-tls-1", "Receive CT over mutual TLS, 1 association", _tls(1), (Goal(RATE, 1.0, "storescp"),)),
    Row("receive-tls-4", "Receive CT over mutual TLS, 4 associations", _tls(4), (Goal(RATE, 1.0, "storescp"),)),
    Row(
        "receive-associations",
        "Receive CT, more and more associations",
        {
            f"{number} associations": partial(_receive, _gateway, lambda data: data.ct, number, "dcmsend", True)
            for number in ASSOCIATIONS
        },
        tuple(Goal(RATE, 0.9, "4 associations", party=f"{number} associations") for number in (8, 16)),
    ),
    Row(
        "receive-multiframe",
        "Receive one instance of 1 GB",
        _parties(lambda data: data.multiframe),
        (Goal(GROWN, 100.0, at_least=False),),
    ),
]
