"""Receivers, each a process of its own in a folder of its own: the gateway, storescp, Orthanc, stock pynetdicom."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.control import kept, let_go
from benchmarks.datasets import DataSet
from benchmarks.senders import NODELAY, Target, dcmtk
from tests.support import orthanc as orthancs
from tests.support.certificates import Files
from tests.support.gateway import Gateway, dicom_destination
from tests.support.ports import free_port, listens
from tests.support.processes import Running
from tests.support.waiting import wait_until

EARLIER = "EARLIER"
"""The AE title that a gateway is called by for what it takes and lets go of before it is measured."""

RECORDED_S = 60.0


@dataclass(frozen=True)
class Receiver:
    """A running receiver: where to send, and the process that is measured; `count` tells how many instances it really has."""

    target: Target
    pid: int
    count: Callable[[], int]

    def has(self, instances: int) -> None:
        """Wait until what was answered is there: a receiver that answered and lost would be a false figure.

        Raises:
            AssertionError: it never was.
        """
        wait_until(lambda: self.count() == instances, f"{instances} instances received", deadline_s=RECORDED_S)


@contextmanager
def gateway(
    folder: Path,
    *,
    tls: Files | None = None,
    port: int | None = None,
    listen: Mapping[str, Any] | None = None,
    kind: type[Gateway] = Gateway,
    destinations: Mapping[str, Any] | None = None,
    earlier: DataSet | None = None,
    deadline_s: float = 30.0,
    **tables: Any,
) -> Iterator[tuple[Receiver, Gateway]]:
    """Run the gateway with an empty state folder; `tables` are those of its configuration, `kind` how it is started,
    and `deadline_s` how long that may take.

    With `earlier` it has work behind it: it took those instances and let go of them. Its spool then uses room again that was used
    before, as that of any gateway that has run for a while.
    """
    port = port or free_port()
    listening: dict[str, Any] = {"max_associations": 256, **(listen or {})}
    if tls is not None:
        listening["tls"] = {"port": free_port(), **tls}
    tables |= {"listen": listening, "serve": {"drain_timeout_s": 5.0}, **_routed(destinations or {})}
    made = kind(folder / "gateway", tables, port)
    with made.serving(deadline_s=deadline_s) as process:
        if earlier is not None:
            dcmtk("dcmsend", Target(port, EARLIER), data=earlier, folder=folder, senders=4)
            let_go(made, earlier.count)
        target = Target(listening["tls"]["port"] if tls is not None else port, "GATEWAY", tls)
        yield Receiver(target, process.pid, lambda: kept(made)), made


def _routed(destinations: Mapping[str, Any]) -> dict[str, Any]:
    """Return destinations and routes: what is sent to the AE title EARLIER waits for a destination that there is not."""
    nowhere = {"nowhere": dicom_destination(free_port(), ae_title="NOWHERE", verify="status")}
    everything = {"name": "all", "when": {"called_ae": "GATEWAY"}, "to": list(destinations)}
    earlier = {"name": "earlier", "when": {"called_ae": EARLIER}, "to": list(nowhere)}
    return {"destinations": {**destinations, **nowhere}, "routes": [earlier, everything] if destinations else [earlier]}


@contextmanager
def storescp(
    folder: Path,
    *options: str | Path,
    port: int | None = None,
    tls: Files | None = None,
    environ: Mapping[str, str] = NODELAY,
    bit_preserving: bool = True,
) -> Iterator[Receiver]:
    """Run DCMTK's ``storescp`` at its best: PDUs of 128 KB, no look-up of names, bytes written as they come."""
    port = port or free_port()
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = ["storescp", "-dhl", "-pdu", "131072", "-pm", "+xa", "-od", received, "-aet", "STORESCP"]
    command += ["+B"] if bit_preserving else []
    if tls is not None:
        command += ["+tls", tls["key"], tls["certificate"], "+cf", tls["ca"], "-rc"]
    with Running([*command, *options, str(port)], environ=environ) as process:
        wait_until(lambda: listens(port) or not process.alive(), f"storescp listening on {port}")
        assert process.alive(), process.output
        yield Receiver(Target(port, "STORESCP", tls), process.pid, lambda: _files(received))


@contextmanager
def orthanc(
    folder: Path, *, environ: Mapping[str, str] = NODELAY, port: int | None = None, tls: Files | None = None, **settings: Any
) -> Iterator[tuple[Receiver, orthancs.Orthanc]]:
    """Run Orthanc with the settings it comes with: it syncs what it stores."""
    own = {"SyncStorageArea": True, "DicomThreadsCount": 4, "Plugins": [], **settings}
    with orthancs.orthanc(folder / "orthanc", port=port, tls=tls, environ=environ, **own) as running:
        yield Receiver(Target(running.port, "ORTHANC", tls), running.process.pid, running.count), running


@contextmanager
def stock_scp(folder: Path) -> Iterator[Receiver]:
    """Run a Storage SCP of stock pynetdicom that keeps what it receives."""
    port = free_port()
    received = folder / "received"
    received.mkdir()
    command = [sys.executable, Path(__file__).with_name("stock_scp.py"), str(port), received]
    with Running(command) as process:
        wait_until(lambda: listens(port) or not process.alive(), f"pynetdicom listening on {port}")
        assert process.alive(), process.output
        yield Receiver(Target(port), process.pid, lambda: _files(received))


def _files(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())
