"""Conditions of a gateway that runs for long: instances that come again, a spool that only grows, a long history and queue.

Received instances go to a destination that does not exist, so that nothing but receiving is measured. Each condition is held
against the same gateway without it, and against storescp, which does not remember what it received.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from operator import attrgetter
from pathlib import Path

from benchmarks import history, receivers
from benchmarks.control import let_go
from benchmarks.datasets import DataSet, DataSets
from benchmarks.harness import CPU_1000, INSTANCES, MS, PEAK, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter, peak_mib
from benchmarks.receivers import EARLIER, Receiver
from benchmarks.senders import Target, dcmtk
from tests.support.gateway import Gateway
from tests.support.ports import free_port
from tests.support.waiting import wait_until

RECORDED_S = 120.0
START_S = 600.0
DEAD = "nowhere"
"""The destination of all that is sent to the AE title EARLIER."""

Pick = Callable[[DataSets], DataSet]

NEW, WARM, SHORT, EMPTY = "gateway, new", "gateway, warm", "gateway, no history", "gateway, nothing waits"
RELEASED, BESIDE = "gateway, released", "gateway, new, as much waits"


def _arrivals(gateway: Gateway) -> int:
    """Return how many arrivals the ledger has recorded, by its file: to ask the gateway would cost it what is measured."""
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM arrivals").fetchone()[0])


def _sent(gateway: Gateway, receiver: Receiver, data: DataSet, senders: int, bench: Bench, folder: Path) -> Metrics:
    """Send `data` to a gateway and wait until all of it is recorded."""
    target, before = Target(receiver.target.port, EARLIER), _arrivals(gateway)
    bench.settle()
    meter = Meter(receiver.pid)
    window = dcmtk("dcmsend", target, data=data, folder=folder, senders=senders)
    wait_until(lambda: _arrivals(gateway) >= before + data.count, f"{data.count} instances recorded", deadline_s=RECORDED_S)
    return transfer(data, window.seconds, meter.stop())


def _once_before(gateway: Gateway, receiver: Receiver, data: DataSet, folder: Path) -> None:
    before = _arrivals(gateway)
    dcmtk("dcmsend", Target(receiver.target.port, EARLIER), data=data, folder=folder, senders=4)
    wait_until(lambda: _arrivals(gateway) >= before + data.count, f"{data.count} instances recorded", deadline_s=RECORDED_S)


def _again(pick: Pick, senders: int, before: Pick | None, released: bool, bench: Bench, folder: Path) -> Metrics:
    """Send `pick` to a gateway that took as much `before`, the same or other, which waits there or is `released`."""
    data = pick(bench.data)
    with receivers.gateway(folder, earlier=bench.data.earlier) as (receiver, gateway):
        if before is not None:
            _once_before(gateway, receiver, before(bench.data), folder)
        if released:
            let_go(gateway, bench.data.earlier.count + data.count)
        return _sent(gateway, receiver, data, senders, bench, folder)


def _to_storescp(pick: Pick, senders: int, twice: bool, bench: Bench, folder: Path) -> Metrics:
    data, many = pick(bench.data), ("--fork",) if senders > 1 else ()
    with receivers.storescp(folder, *many) as receiver:
        dcmtk("dcmsend", receiver.target, data=data if twice else bench.data.warm, folder=folder)
        bench.settle()
        meter = Meter(receiver.pid)
        window = dcmtk("dcmsend", receiver.target, data=data, folder=folder, senders=senders)
        return transfer(data, window.seconds, meter.stop())


def _again_row(name: str, what: str, pick: Pick, other: Pick, senders: int) -> Row:
    many = "1 association" if senders == 1 else f"{senders} associations"
    parties: dict[str, Party] = {
        "gateway": partial(_again, pick, senders, pick, False),
        BESIDE: partial(_again, pick, senders, other, False),
        RELEASED: partial(_again, pick, senders, pick, True),
        NEW: partial(_again, pick, senders, other, True),
        "storescp": partial(_to_storescp, pick, senders, True),
    }
    goals = (
        Goal(CPU_1000, 1.1, BESIDE, at_least=False),
        Goal(CPU_1000, 1.1, NEW, at_least=False, party=RELEASED),
        Goal(INSTANCES, 0.9, BESIDE),
        Goal(INSTANCES, None, "storescp"),
    )
    return Row(f"receive-again-{name}", f"Receive {what} again, {many}", parties, goals)


def _cold(warm: bool, bench: Bench, folder: Path) -> Metrics:
    """Receive what is never released, into a spool whose room was used before or not."""
    data = bench.data.ct
    with receivers.gateway(folder, earlier=bench.data.earlier if warm else None) as (receiver, gateway):
        return _sent(gateway, receiver, data, 4, bench, folder)


def _long_ledger(bench: Bench) -> Path:
    """Return the state folder of a gateway with a long history; made once a run, and given back as it was after each use."""

    def make() -> Path:
        state = bench.folder / "history" / "gateway" / "state"
        history.past(state / "ledger.db", bench.data.sizes.history)
        return state

    return bench.once("history", make)


def _with_history(bench: Bench, folder: Path) -> Metrics:
    state = _long_ledger(bench)
    try:
        with receivers.gateway(state.parents[1]) as (receiver, gateway):
            _once_before(gateway, receiver, bench.data.warm, folder)
            return _sent(gateway, receiver, bench.data.small, 4, bench, folder)
    finally:
        shutil.rmtree(state / "spool", ignore_errors=True)
        history.forget_since(state / "ledger.db", bench.data.sizes.history)


def _without_history(bench: Bench, folder: Path) -> Metrics:
    with receivers.gateway(folder) as (receiver, gateway):
        _once_before(gateway, receiver, bench.data.warm, folder)
        return _sent(gateway, receiver, bench.data.small, 4, bench, folder)


def _queue(bench: Bench) -> Path:
    def make() -> Path:
        state = bench.folder / "waiting" / "gateway" / "state"
        history.waiting(state, bench.data.sizes.waiting, destination=DEAD)
        return state

    return bench.once("waiting", make)


def _start(waits: bool, in_memory: bool, bench: Bench, folder: Path) -> Metrics:
    """Time from the start of the process until it listens."""
    root = _queue(bench).parents[1] if waits else folder
    _bring(root, in_memory=in_memory)
    opened: AbstractContextManager[tuple[Receiver, Gateway]] = receivers.gateway(root, port=free_port(), deadline_s=START_S)
    began = time.perf_counter()
    with opened as (receiver, _gateway):
        ready = (time.perf_counter() - began) * 1000
        return {MS: ready, PEAK: peak_mib(receiver.pid)}


def _bring(folder: Path, *, in_memory: bool) -> None:
    """Have every file below `folder` in memory, or none."""
    os.sync()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if in_memory:
                while file.read(1 << 20):
                    pass
            else:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


_CT: Pick = attrgetter("ct")
_CT_BESIDE: Pick = attrgetter("ct_beside")
_SMALL: Pick = attrgetter("small")
_SMALL_BESIDE: Pick = attrgetter("small_beside")

ROWS = [
    _again_row("ct-1", "CT", _CT, _CT_BESIDE, 1),
    _again_row("ct-4", "CT", _CT, _CT_BESIDE, 4),
    _again_row("small-1", "20 KB instances", _SMALL, _SMALL_BESIDE, 1),
    _again_row("small-4", "20 KB instances", _SMALL, _SMALL_BESIDE, 4),
    Row(
        "receive-cold",
        "Receive CT into a spool that never frees, 4 associations",
        {
            "gateway": partial(_cold, False),
            WARM: partial(_cold, True),
            "storescp": partial(_to_storescp, _CT, 4, False),
        },
        (Goal(RATE, None, WARM), Goal(RATE, None, "storescp"), Goal(CPU_1000, 1.1, WARM, at_least=False)),
    ),
    Row(
        "receive-history",
        "Receive 20 KB instances with a history of 10 million, 4 associations",
        {
            "gateway": _with_history,
            SHORT: _without_history,
            "storescp": partial(_to_storescp, _SMALL, 4, False),
        },
        (
            Goal(INSTANCES, 0.9, SHORT),
            Goal(CPU_1000, 1.1, SHORT, at_least=False),
            Goal(INSTANCES, None, "storescp"),
        ),
    ),
    Row(
        "small-start",
        "Start with 1 million waiting, until it listens",
        {
            "gateway": partial(_start, True, False),
            WARM: partial(_start, True, True),
            EMPTY: partial(_start, False, True),
        },
        (Goal(MS, 30_000.0, at_least=False), Goal(MS, None, WARM, at_least=False), Goal(MS, None, EMPTY, at_least=False)),
    ),
]
