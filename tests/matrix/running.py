"""Every real file through the gateway's delivery to every destination: what became of each, and what came there.

One ledger, spool and transcoder for all of them, put together as `gateway.app.assembly` does. Files that share a SOP Instance UID
cannot be at a destination side by side, so they come in rounds; between two rounds the peers are emptied.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.core.domain import Mode
from tests.matrix.peers import Peer
from tests.support import data, instances
from tests.support.ports import HOST
from tests.support.transcoders import working

DEADLINE_S = 240.0
"""For a round; the first one, with most of the files, takes some 30 s."""


@dataclass(frozen=True)
class Cell:
    """The outcome of one file at one destination: `received` is the file there, None where the delivery is `held` for `reason`."""

    path: Path
    peer: str
    mode: Mode
    state: str
    reason: str
    received: Path | None


SLOW = ("MR_truncated.dcm", "SC_rgb_jpeg.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm", "rtplan_truncated.dcm")
"""Orthanc gives no answer about them: they are sent side by side."""


def rounds(files: Iterable[Path]) -> list[list[Path]]:
    """Put files into as few rounds as there are, no SOP Instance UID twice in one."""
    found: list[dict[str, Path]] = []
    for path in sorted(files, key=lambda path: path.name not in SLOW):
        uid = data.identity(path)[2]
        free = next((each for each in found if uid not in each), None)
        if free is None:
            found.append(free := {})
        free[uid] = path
    first, *others = [list(each.values()) for each in found]
    return [_spread(first), *others]


def _spread(files: list[Path]) -> list[Path]:
    """Return `files` with those that are slow far from each other, in different batches."""
    slow = [path for path in files if path.name in SLOW]
    found = [path for path in files if path.name not in SLOW]
    for number, path in enumerate(slow):
        found.insert(number * len(files) // len(slow), path)
    return found


def settings(peers: Mapping[tuple[str, Mode], Peer]) -> Settings:
    return Settings.model_validate(
        {
            "destinations": {
                _name(kind, mode): {
                    "kind": "dicom",
                    "ae_title": "PEER",
                    "host": HOST,
                    "port": peer.port,
                    "transfer_syntax": mode,
                    "verify": "status",
                    "associations": 4 if kind == "orthanc" else 1,
                    "response_timeout_s": 5.0,
                    "retry": {"attempts": 2, "first_s": 0.05, "max_s": 0.2},
                }
                for (kind, mode), peer in peers.items()
            }
        }
    )


def _name(kind: str, mode: Mode) -> str:
    return f"{kind}-{mode}"


def run(files: Sequence[Path], peers: Mapping[tuple[str, Mode], Peer], folder: Path) -> Iterator[list[Cell]]:
    """Send `files` to all `peers`, and give a round's cells at a time; what was received is gone once the next is asked for."""
    configuration = settings(peers)
    for number, some in enumerate(rounds(files)):
        with instances.store(folder / f"state-{number}") as store:
            names = [_name(*destination) for destination in peers]
            by_uid = {store.add_file(path, *names): path for path in some}
            with Pool() as pool:
                trio.run(_settle, store, configuration, pool)
            received = folder / f"received-{number}"
            there = {_name(*each): peer.take(received / _name(*each)) for each, peer in peers.items()}
            rows = {(row.sop_instance_uid, row.destination): row for row in store.rows()}
        yield [
            _cell(path, destination, rows[uid, _name(*destination)], there[_name(*destination)].get(uid))
            for uid, path in by_uid.items()
            for destination in peers
        ]
        shutil.rmtree(received)
        shutil.rmtree(store.folder)


def _cell(path: Path, destination: tuple[str, Mode], row: Any, received: Path | None) -> Cell:
    return Cell(path, *destination, row.state, row.reason or "", received)


async def _settle(store: instances.Store, configuration: Settings, pool: Pool) -> None:
    async with working(store, configuration, pool):
        with trio.move_on_after(DEADLINE_S):
            while not set(store.states()) <= {"verified", "held"}:  # noqa: ASYNC110 - what is awaited lies in the ledger
                await trio.sleep(0.05)
