"""Receiving: the gateway, durable, beside storescp (which syncs nothing), Orthanc and stock pynetdicom.

The time ends with the last response. Then each receiver has to have every instance: the gateway in its ledger, Orthanc in its
index, the others as files. The time until then is reported separately, and its CPU is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.datasets import DataSet, DataSets
from benchmarks.harness import BEHIND, CPU_GB, GROWN, INSTANCES, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.receivers import Receiver
from benchmarks.senders import NODELAY, STOCK, dcmtk
from tests.support.certificates import Files

Pick = Callable[[DataSets], DataSet]
Opened = Callable[[Bench, Path], AbstractContextManager[Receiver]]


def ct(data: DataSets) -> DataSet:
    """Return the CT slices."""
    return data.ct


def _small(data: DataSets) -> DataSet:
    return data.small


def _stalled(data: DataSets) -> DataSet:
    return data.stalled


def _receive(opened: Opened, pick: Pick, senders: int, program: str, nodelay: bool, bench: Bench, folder: Path) -> Metrics:
    """Send with DCMTK to a receiver that has taken a few instances before."""
    data, warm, environ = pick(bench.data), bench.data.warm, NODELAY if nodelay else STOCK
    with opened(bench, folder) as receiver:
        dcmtk(program, receiver.target, data=warm, folder=folder)
        bench.settle()
        meter = Meter(receiver.pid)
        window = dcmtk(program, receiver.target, data=data, folder=folder, senders=senders, environ=environ)
        receiver.has(warm.count + data.count)
        return transfer(data, window.seconds, meter.stop()) | {BEHIND: window.until_now() - window.seconds}


@contextmanager
def _gateway(bench: Bench, folder: Path, tls: Files | None = None) -> Iterator[Receiver]:
    with receivers.gateway(folder, tls=tls, earlier=bench.data.earlier) as (receiver, _):
        yield receiver


@contextmanager
def _orthanc(environ: Mapping[str, str], _bench: Bench, folder: Path) -> Iterator[Receiver]:
    with receivers.orthanc(folder, environ=environ) as (receiver, _):
        yield receiver


def _opened(senders: int = 1, *, nodelay: bool = True) -> dict[str, Opened]:
    environ = NODELAY if nodelay else STOCK
    many = ("--fork",) if senders > 1 else ()
    return {
        "gateway": _gateway,
        "storescp": lambda _bench, folder: receivers.storescp(folder, *many, environ=environ),
        "Orthanc": partial(_orthanc, environ),
    }


def _parties(pick: Pick, senders: int = 1, *, stock: bool = False) -> dict[str, Party]:
    opened = _opened(senders) | ({"pynetdicom": lambda _bench, folder: receivers.stock_scp(folder)} if stock else {})
    return {name: partial(_receive, open_, pick, senders, "dcmsend", True) for name, open_ in opened.items()}


def _nagle() -> dict[str, Party]:
    """Give the receivers that stall 40 ms an instance fewer of the same slices: what is compared are rates."""
    picks = {"gateway": ct, "storescp": _stalled, "Orthanc": _stalled}
    opened = _opened(nodelay=False)
    return {name: partial(_receive, opened[name], pick, 1, "dcmsend", False) for name, pick in picks.items()}


def _over_tls(opened: Callable[..., AbstractContextManager[Receiver]], senders: int, bench: Bench, folder: Path) -> Metrics:
    return _receive(partial(opened, tls=bench.tls), ct, senders, "storescu", True, bench, folder)


def _tls(senders: int) -> dict[str, Party]:
    many = ("--fork",) if senders > 1 else ()
    return {
        "gateway": partial(_over_tls, _gateway, senders),
        "storescp": partial(_over_tls, lambda _bench, folder, tls: receivers.storescp(folder, *many, tls=tls), senders),
    }


def _many(associations: int) -> str:
    return "1 association" if associations == 1 else f"{associations} associations"


ASSOCIATIONS = (1, 2, 4, 8, 16)

_STOCK = frozenset({"pynetdicom"})
_CT_GOALS = (Goal(RATE, 1.0, "storescp"), Goal(RATE, 4.0, "Orthanc"), Goal(CPU_GB, 1.0, "storescp", at_least=False))

ROWS = [
    Row("receive-ct-1", "Receive CT, 1 association", _parties(ct, stock=True), _CT_GOALS, once=_STOCK),
    Row("receive-ct-4", "Receive CT, 4 associations", _parties(ct, 4, stock=True), _CT_GOALS, once=_STOCK),
    Row(
        "receive-nagle",
        "Receive CT from stock dcmsend (Nagle), 1 association",
        _nagle(),
        (Goal(RATE, 20.0, "storescp"), Goal(RATE, 20.0, "Orthanc")),
    ),
    Row(
        "receive-small-1",
        "Receive 20 KB instances, 1 association",
        _parties(_small, stock=True),
        (Goal(INSTANCES, 2.0, "storescp"), Goal(INSTANCES, 3.0, "Orthanc")),
        once=_STOCK,
    ),
    Row(
        "receive-small-4",
        "Receive 20 KB instances, 4 associations",
        _parties(_small, 4, stock=True),
        (Goal(INSTANCES, 3.0, "Orthanc"), Goal(INSTANCES, None, "storescp")),
        once=_STOCK,
    ),
    Row(
        "receive-j2k",
        "Receive CT in JPEG 2000 Lossless, 1 association",
        _parties(lambda data: data.j2k),
        (Goal(RATE, None, "storescp"), Goal(RATE, None, "Orthanc"), Goal(CPU_GB, None, "storescp", at_least=False)),
    ),
    Row("receive-tls-1", "Receive CT over mutual TLS, 1 association", _tls(1), (Goal(RATE, 1.0, "storescp"),)),
    Row("receive-tls-4", "Receive CT over mutual TLS, 4 associations", _tls(4), (Goal(RATE, 1.0, "storescp"),)),
    Row(
        "receive-associations",
        "Receive CT, more and more associations",
        {_many(number): partial(_receive, _gateway, ct, number, "dcmsend", True) for number in ASSOCIATIONS},
        tuple(
            Goal(RATE, 0.9 if number > 4 else None, "4 associations", party=_many(number)) for number in ASSOCIATIONS if number != 4
        ),
    ),
    Row(
        "receive-multiframe",
        "Receive one instance of 1 GB",
        _parties(lambda data: data.multiframe),
        (Goal(GROWN, 100.0, at_least=False), Goal(RATE, None, "storescp")),
        rounds=2,
        once=frozenset({"Orthanc"}),
    ),
]
