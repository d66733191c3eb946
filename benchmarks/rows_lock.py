"""Cost of the interpreter lock for a receiving gateway, at 1, 4 and 16 associations.

Two measurements. Inside: how long a thread that comes out of a system call waits until it may go on (`benchmarks.probed`), and how
often it has to wait at all. Outside: the same associations spread over two and four gateways, which share no lock, nor a spool or
a ledger, so that they share no group commit either.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import receivers
from benchmarks.harness import CPU_GB, LOCK_HELD, LOCK_MS, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.senders import Window, dcmtk
from tests.support.gateway import COMMAND, Gateway
from tests.support.waiting import wait_until

ASSOCIATIONS = (1, 4, 16)
PROCESSES = (1, 2, 4)

NOTICED_S = 50e-6
"""A thread that goes on within this time found the lock free: taking it, and reading the clock twice, takes less."""

REPORT = "lock.json"


class ProbedGateway(Gateway):
    """A gateway that notes how late a thread of it gets the lock."""

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Return the command line of ``gateway NAME …`` with the probe beside it."""
        # -P: this folder's modules are not to be found in place of others.
        probed = [sys.executable, "-P", str(Path(__file__).with_name("probed.py")), str(self.folder / REPORT)]
        return [*probed, *super().command(name, *arguments)[len(COMMAND) :]]


def waits(samples: Sequence[tuple[float, float]], window: Window) -> Metrics:
    """Return how long, in the mean, and how often a thread waited for the lock within `window`.

    Raises:
        AssertionError: nothing was sampled in it.
    """
    end = window.began_at + window.seconds
    found = [waited_s for at, waited_s in samples if window.began_at <= at <= end]
    assert found, "no sample of the lock"
    held = sum(waited_s > NOTICED_S for waited_s in found)
    return {LOCK_MS: statistics.fmean(found) * 1000, LOCK_HELD: 100 * held / len(found)}


def _receive(associations: int, processes: int, bench: Bench, folder: Path) -> Metrics:
    """Spread the senders over gateways side by side, each with a state folder and a port of its own."""
    data, warm = bench.data.ct, bench.data.warm
    folders = [folder / str(number) for number in range(processes)]
    with ExitStack() as stack:
        opened = [
            stack.enter_context(receivers.gateway(own, kind=ProbedGateway, earlier=earlier))[0]
            for own, earlier in zip(folders, bench.data.earlier.split(processes), strict=True)
        ]
        for receiver in opened:
            dcmtk("dcmsend", receiver.target, data=warm, folder=folder)
        bench.settle()
        meter = Meter(*(receiver.pid for receiver in opened))
        targets = [receiver.target for receiver in opened]
        window = dcmtk("dcmsend", *targets, data=data, folder=folder, senders=associations)
        expected = warm.count * processes + data.count
        wait_until(lambda: sum(receiver.count() for receiver in opened) == expected, "every instance received")
        metrics = transfer(data, window.seconds, meter.stop())
    samples = [sample for own in folders for sample in json.loads((own / "gateway" / REPORT).read_text())]
    return metrics | waits(samples, window)


def _name(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _row(associations: int) -> Row:
    many = [number for number in PROCESSES if number <= associations]
    parties: dict[str, Party] = {_name(number): partial(_receive, associations, number) for number in many}
    goals = [
        goal
        for name in list(parties)[1:]
        for goal in (Goal(RATE, None, name, party="1 process"), Goal(CPU_GB, None, name, party="1 process", at_least=False))
    ]
    noun = "association" if associations == 1 else "associations"
    return Row(f"lock-{associations}", f"Receive CT, {associations} {noun}", parties, tuple(goals))


ROWS = [_row(associations) for associations in ASSOCIATIONS]
