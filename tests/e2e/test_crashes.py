"""Promise 1 under SIGKILL: what was answered 0000 is delivered, wherever the gateway was killed, its recovery included.

A gateway under load is killed by ``strace`` at a chosen system call, started again on the same state and killed again, in chains;
each chain ends with an undisturbed start, after which every instance that was ever answered 0000 must be at the destination, byte
for byte. The destination is a folder in one chain and a DICOM peer in the next. ``when`` counts the calls of each thread by itself,
so that one number means another moment in each thread. In every third run the counting begins with the process, so that start and
recovery are killed too; else it begins with the load. Segments of the spool are small, so that they are freed and begun anew.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import data
from tests.support.crashing import Crashable, Fault, ForkServer, failing, listening
from tests.support.gateway import Gateway, dicom_destination, folder_destination
from tests.support.load import Held, Ledger, Template, in_acceptor, in_folder, lost
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.peers("strace"), pytest.mark.slow, pytest.mark.timeout(900)]

WANTED_KILLS = int(os.environ.get("GATEWAY_TEST_KILLS", "200"))
CHAIN = 10
WORKERS = 2

POINTS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    # name: the calls, and at which of them (counted by thread)
    "before a write to the spool": (("write", "writev", "pwritev", "pwritev2"), (1, 2, 3, 5, 8, 13, 21, 34)),
    "before a segment is given room": (("fallocate",), (1, 2)),
    "before a segment is cut": (("ftruncate",), (1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3)),
    "before a positioned write (ledger pages, removal of a record)": (
        ("pwrite64",),
        (1, 2, 3, 5, 7, 9, 12, 16, 20, 26, 33, 45, 60, 80, 110),
    ),
    "before an fsync (new segment, file, folder)": (("fsync",), (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18)),
    "before a sync of a record, a commit of the ledger": (("fdatasync",), (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 28)),
    "before a rename": (("rename", "renameat", "renameat2", "link", "linkat"), (1, 2, 3, 4, 6, 8, 11, 15, 20, 26)),
    "before an answer is sent": (("sendto", "sendmsg"), (1, 2, 3, 4, 6, 9, 13, 18, 24, 30)),
    "after an answer, before the next request": (("recvfrom", "recvmsg"), (2, 3, 4, 5, 8, 12, 17, 25, 38, 55, 80)),
    "before a file is opened": (("openat", "open"), (1, 2, 5, 9, 14, 20, 27, 35, 44, 60)),
    "before a file is closed": (("close",), (1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 40, 55)),
    "before a file is removed": (("unlink", "unlinkat"), (1, 2, 3, 4, 5, 7, 10, 14)),
    "between threads": (("futex",), (2, 5, 9, 15, 23, 35, 60, 90, 140, 200)),
    "a read of the spool or ledger": (("pread64", "preadv", "read"), (1, 3, 6, 10, 16, 25, 40, 60, 90)),
    "any call": (("all",), (40, 90, 150, 220, 300, 400, 520, 660, 820, 1000, 1250, 1600)),
}


def faults() -> Iterator[Fault]:
    """Every point, the early moments of all of them first, over and over."""
    rounds = itertools.zip_longest(*([Fault(name, calls, nth) for nth in moments] for name, (calls, moments) in POINTS.items()))
    return itertools.cycle([fault for fault in itertools.chain.from_iterable(rounds) if fault is not None])


@dataclass
class Chain:
    """One state folder, killed again and again under load."""

    folder: Path
    number: int
    sent: Ledger
    destination: dict[str, Any]
    held: Callable[[], Held]
    kills: list[str] = field(default_factory=list)
    missed: int = 0

    def __post_init__(self) -> None:
        self.gateway = Gateway(self.folder, {"destinations": {"there": self.destination}})

    def run(self, server: ForkServer, some: list[Fault]) -> set[str]:
        """Inject each of `some`, then start once more undisturbed; returns what was answered 0000 and is not delivered whole."""
        for number, fault in enumerate(some):
            if self._killed_at_start(server, fault) if number % 3 == 0 else self._killed_under_load(server, fault):
                self.kills.append(fault.name)
            else:
                self.missed += 1
        with server.serve(self.gateway) as process:
            return self._lost(process)

    def _killed_at_start(self, server: ForkServer, fault: Fault) -> bool:
        with server.serve(self.gateway, fault) as process:
            if listening(self.gateway, process):
                self.sent.load(self.gateway.port, associations=2, each=15)
            return process.ended(2.0)

    def _killed_under_load(self, server: ForkServer, fault: Fault) -> bool:
        with server.serve(self.gateway) as process:
            assert listening(self.gateway, process), self._log()
            with failing(process.pid, fault):
                self.sent.load(self.gateway.port, associations=2, each=15)
                return process.ended(2.0)

    def _lost(self, process: Crashable) -> set[str]:
        assert listening(self.gateway, process), self._log()
        try:
            wait_until(lambda: not lost(self.held(), self.sent), "everything delivered", deadline_s=60, pause_s=0.2)
        except AssertionError:
            return lost(self.held(), self.sent)
        return set()

    def _log(self) -> str:
        return (self.folder / "serve.log").read_text()[-4000:]


@contextmanager
def chain(root: Path, number: int, template: Template) -> Iterator[Chain]:
    folder, sent = root / f"chain-{number}", Ledger(template, prefix=f"{data.UID_ROOT}.{500 + number}")
    if number % 2:
        archive = folder / "archive"
        yield Chain(folder, number, sent, folder_destination(archive), lambda: in_folder(archive))
        return
    with ScriptedScp(keep_data=True).running() as peer:
        yield Chain(folder, number, sent, dicom_destination(peer.port, verify="status"), lambda: in_acceptor(peer))


def test_what_was_answered_with_success_survives_kills_at_any_system_call(tmp_path: Path) -> None:
    template, moments, numbers = Template(tmp_path / "template"), faults(), itertools.count()
    chains: list[Chain] = []
    losses: dict[str, set[str]] = {}

    def work(_worker: int) -> None:
        with ForkServer() as server:
            while sum(len(one.kills) for one in chains) < WANTED_KILLS and len(chains) * CHAIN < 3 * WANTED_KILLS:
                with chain(tmp_path, next(numbers), template) as one:
                    chains.append(one)
                    if missing := one.run(server, [next(moments) for _ in range(CHAIN)]):
                        losses[one.folder.name] = missing

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))
    acknowledged = sum(len(one.sent.acknowledged) for one in chains)
    kills = sum(len(one.kills) for one in chains)
    print(f"{kills} kills in {len(chains)} chains, {sum(one.missed for one in chains)} not reached, {acknowledged} answered 0000")
    assert losses == {}
    assert kills >= WANTED_KILLS
    assert {name for one in chains for name in one.kills} == set(POINTS), "each point was reached"
    assert acknowledged > kills
