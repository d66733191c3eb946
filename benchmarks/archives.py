"""Sources that hold the CT set and send it on demand, the same ones in every round: dcmqrscp and Orthanc."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.datasets import DataSet
from benchmarks.harness import Bench
from benchmarks.senders import NODELAY, Target, dcmtk
from tests.support import dcmtk as dcmtk_peers
from tests.support import orthanc as orthancs
from tests.support.ports import HOST, free_port

AE_TITLE = "ARCHIVE"


@dataclass(frozen=True)
class Archive:
    """A running source, and the ports that it sends to: the gateway's (AE title GATEWAY) and the destination's (ORTHANC)."""

    port: int
    gateway_port: int
    destination_port: int
    ae_title: str = AE_TITLE


def dcmqrscp(bench: Bench) -> Archive:
    """Return a ``dcmqrscp`` that holds the CT set."""
    return bench.once("dcmqrscp", lambda: _dcmqrscp(bench))


def _dcmqrscp(bench: Bench) -> Archive:
    ports = free_port(), free_port()
    with bench.kept_if_made() as stack:
        folder = stack.enter_context(bench.scratch())
        made = stack.enter_context(dcmtk_peers.dcmqrscp(folder, hosts=_hosts(*ports), files=bench.data.ct.files))
    return Archive(made.port, *ports)


def orthanc_archive(bench: Bench, data: DataSet | None = None) -> Archive:
    """Return an Orthanc that holds `data`, else the CT set."""
    held = data or bench.data.ct
    return bench.once(f"orthanc-archive-{held.name}", lambda: _orthanc(bench, held))


def _orthanc(bench: Bench, data: DataSet) -> Archive:
    ports = free_port(), free_port()
    with bench.kept_if_made() as stack:
        folder = stack.enter_context(bench.scratch())
        hosts = _hosts(*ports)
        made = stack.enter_context(orthancs.orthanc(folder, ae_title=AE_TITLE, modalities=hosts, environ=NODELAY))
        dcmtk("dcmsend", Target(made.port, AE_TITLE), data=data, folder=folder, senders=4)
    return Archive(made.port, *ports)


def _hosts(gateway_port: int, destination_port: int) -> dict[str, tuple[str, int]]:
    return {"GATEWAY": (HOST, gateway_port), "ORTHANC": (HOST, destination_port)}
