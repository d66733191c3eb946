"""Relays: what comes in goes out again, until the destination has everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from benchmarks import receivers
from benchmarks.control import client, delivered
from benchmarks.datasets import DataSet
from benchmarks.harness import CPU_GB, GROWN, RATE, Bench, Goal, Metrics, Row, transfer
from benchmarks.process import Meter
from benchmarks.receivers import Receiver
from benchmarks.senders import NODELAY, Target, dcmtk
from gateway.association.contexts import STUDY_ROOT_MOVE, plan_contexts
from gateway.association.requestor import RemoteAE, associate, next_message_id
from gateway.web.wire import PullCommand
from tests.support import dcmtk as dcmtk_peers
from tests.support import orthanc as orthancs
from tests.support.certificates import Files
from tests.support.gateway import dicom_destination, source
from tests.support.ports import HOST, free_port
from tests.support.waiting import wait_until

ARRIVAL_S = 900.0
LOOK_S = 0.02

LUA = """function OnStoredInstance(instanceId, tags, metadata)
  SendToModality(instanceId, 'destination')
end
"""


@dataclass(frozen=True)
class Destination:
    """Where a relay sends to; `count` tells how many instances are there."""

    target: Target
    count: Callable[[], int]

    def has(self, instances: int) -> None:
        """Wait until it has `instances`."""
        wait_until(lambda: self.count() >= instances, f"{instances} at the destination", deadline_s=ARRIVAL_S, pause_s=LOOK_S)

    def table(self, **more: object) -> dict[str, object]:
        """Return it as the gateway's configuration names it."""
        return dicom_destination(
            self.target.port, ae_title=self.target.ae_title, tls=self.target.tls, verify="status", associations=4, **more
        )


@contextmanager
def _orthanc(folder: Path, port: int | None = None, tls: Files | None = None) -> Iterator[Destination]:
    known = {"DicomTlsRemoteCertificateRequired": True} if tls is not None else {}
    with receivers.orthanc(folder / "destination", port=port, tls=tls, **known) as (receiver, running):
        yield Destination(receiver.target, running.count)


@contextmanager
def _storescp(folder: Path, port: int | None = None) -> Iterator[Destination]:
    with receivers.storescp(folder / "destination", "--fork", port=port) as receiver:
        kept = folder / "destination" / "received"
        yield Destination(receiver.target, lambda: sum(1 for _ in kept.iterdir()))


Destinations = Callable[[Path], "Iterator[Destination]"]


@contextmanager
def _gateway_relay(folder: Path, destination: Destination) -> Iterator[Receiver]:
    with receivers.gateway(folder, destinations={"destination": destination.table()}) as (receiver, _):
        yield receiver


@contextmanager
def _orthanc_relay(folder: Path, destination: Destination) -> Iterator[Receiver]:
    """Run Orthanc with autorouting by Lua, as its documentation shows it."""
    script = folder / "autorouting.lua"
    script.write_text(LUA)
    with receivers.orthanc(folder, LuaScripts=[str(script)], OverwriteInstances=True) as (receiver, running):
        running.add_modality("destination", destination.target.ae_title, destination.target.port)
        yield receiver


@contextmanager
def _eostudy_relay(folder: Path, destination: Destination) -> Iterator[Receiver]:
    """Run storescp that sends a study on once nothing came for a second: neither durable nor with another attempt."""
    onward = (
        f"storescu -aec {destination.target.ae_title} -pdu 131072 --max-send-pdu 131072 +sd {HOST} {destination.target.port} #p"
    )
    options = ("-su", "study", "-xcs", onward, "-tos", "1")
    with receivers.storescp(folder, *options, bit_preserving=False) as receiver:
        yield receiver


def _relay(relay: object, to: object, pick: Callable[..., DataSet], bench: Bench, folder: Path) -> Metrics:
    """Send with one dcmsend to the relay; it is over when the destination has everything."""
    data, warm = pick(bench.data), bench.data.warm
    with to(folder) as destination, relay(folder, destination) as receiver:  # type: ignore[operator]
        dcmtk("dcmsend", receiver.target, warm, folder)
        destination.has(warm.count)
        bench.settle()
        meter, began = Meter(receiver.pid), time.perf_counter()
        dcmtk("dcmsend", receiver.target, data, folder)
        destination.has(warm.count + data.count)
        return transfer(data, time.perf_counter() - began, meter.stop())


def _direct(program: str, to: object, pick: Callable[..., DataSet], bench: Bench, folder: Path) -> Metrics:
    """Send straight to the destination on one association."""
    data = pick(bench.data)
    with to(folder) as destination:  # type: ignore[operator]
        dcmtk(program, destination.target, bench.data.warm, folder)
        bench.settle()
        began = time.perf_counter()
        dcmtk(program, destination.target, data, folder)
        return transfer(data, time.perf_counter() - began)


def _tls_relay(bench: Bench, folder: Path) -> Metrics:
    return _relay(_gateway_relay, partial(_orthanc, tls=bench.tls), lambda data: data.slow, bench, folder)


def _tls_direct(bench: Bench, folder: Path) -> Metrics:
    return _direct("storescu", partial(_orthanc, tls=bench.tls), lambda data: data.slow, bench, folder)


@dataclass(frozen=True)
class Archive:
    """A source that holds the CT set, and the ports that it sends to: the gateway's and the destination's."""

    port: int
    ae_title: str
    gateway_port: int
    destination_port: int


def _dcmqrscp(bench: Bench) -> Archive:
    def make() -> Archive:
        ports = free_port(), free_port()
        hosts = {"GATEWAY": (HOST, ports[0]), "ORTHANC": (HOST, ports[1])}
        made = bench.kept.enter_context(dcmtk_peers.dcmqrscp(bench.folder / "archive", hosts=hosts, files=bench.data.ct.files))
        return Archive(made.port, made.ae_title, *ports)

    return bench.once("dcmqrscp", make)


def _orthanc_archive(bench: Bench) -> Archive:
    def make() -> Archive:
        ports = free_port(), free_port()
        hosts = {"GATEWAY": (HOST, ports[0]), "ORTHANC": (HOST, ports[1])}
        folder = bench.folder / "orthanc-archive"
        made = bench.kept.enter_context(orthancs.orthanc(folder, ae_title="ARCHIVE", modalities=hosts, environ=NODELAY))
        dcmtk("dcmsend", Target(made.port, "ARCHIVE"), bench.data.ct, folder, senders=4)
        return Archive(made.port, "ARCHIVE", *ports)

    return bench.once("orthanc-archive", make)


def _pulled(archive_of: Callable[[Bench], Archive], bench: Bench, folder: Path) -> Metrics:
    """Have the gateway retrieve the study and send it on."""
    archive, data = archive_of(bench), bench.data.ct
    with ExitStack() as stack:
        destination = stack.enter_context(_orthanc(folder, archive.destination_port))
        receiver, gateway = stack.enter_context(
            receivers.gateway(
                folder,
                port=archive.gateway_port,
                destinations={"destination": destination.table()},
                sources={"archive": source(archive.port)},
            )
        )
        bench.settle()
        meter, began = Meter(receiver.pid), time.perf_counter()
        with client(gateway) as asked:
            command = PullCommand(source="archive", study_uids=(data.study_uid,))
            events = stack.enter_context(asked.stream("/pull", command))
            reader = threading.Thread(target=lambda: list(events), daemon=True)
            reader.start()
            destination.has(data.count)
            seconds, cost = time.perf_counter() - began, meter.stop()
            reader.join(60)
        assert delivered(gateway) == data.count
        return transfer(data, seconds, cost)


def _moved(archive_of: Callable[[Bench], Archive], bench: Bench, folder: Path) -> Metrics:
    """Have the archive send the study straight to the destination."""
    archive, data = archive_of(bench), bench.data.ct
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", data.study_uid
    contexts = plan_contexts([(STUDY_ROOT_MOVE, "1.2.840.10008.1.2")])[0]
    with _orthanc(folder, archive.destination_port) as destination:
        bench.settle()
        began = time.perf_counter()
        with associate(RemoteAE(archive.ae_title, HOST, archive.port), "GATEWAY", contexts) as association:
            list(association.move(identifier, destination_ae="ORTHANC", message_id=next_message_id()))
        destination.has(data.count)
        return transfer(data, time.perf_counter() - began)


def _moves(archive_of: Callable[[Bench], Archive]) -> dict[str, Callable[[Bench, Path], Metrics]]:
    return {"gateway": partial(_pulled, archive_of), "C-MOVE straight": partial(_moved, archive_of)}


ROWS = [
    Row(
        "relay-orthanc",
        "Relay CT: dcmsend → relay → Orthanc",
        {
            "gateway": partial(_relay, _gateway_relay, _orthanc, lambda data: data.slow),
            "Orthanc with Lua": partial(_relay, _orthanc_relay, _orthanc, lambda data: data.slow),
            "dcmsend straight": partial(_direct, "dcmsend", _orthanc, lambda data: data.slow),
        },
        (
            Goal(RATE, 5.0, "Orthanc with Lua"),
            Goal(RATE, 1.0, "dcmsend straight"),
            Goal(CPU_GB, 0.125, "Orthanc with Lua", at_least=False),
        ),
    ),
    Row(
        "relay-storescp",
        "Relay CT: dcmsend → relay → storescp",
        {
            "gateway": partial(_relay, _gateway_relay, _storescp, lambda data: data.ct),
            "storescp --exec-on-eostudy": partial(_relay, _eostudy_relay, _storescp, lambda data: data.ct),
            "dcmsend straight": partial(_direct, "dcmsend", _storescp, lambda data: data.ct),
        },
    ),
    Row(
        "relay-move-dcmqrscp",
        "Relay CT by C-MOVE from dcmqrscp to Orthanc",
        _moves(_dcmqrscp),
        (Goal(RATE, 0.9, "C-MOVE straight"),),
    ),
    Row(
        "relay-move-orthanc",
        "Relay CT by C-MOVE from Orthanc to Orthanc",
        _moves(_orthanc_archive),
        (Goal(RATE, 0.9, "C-MOVE straight"),),
    ),
    Row(
        "relay-tls",
        "Relay CT into Orthanc over mutual TLS",
        {"gateway": _tls_relay, "storescu straight": _tls_direct},
        (Goal(RATE, 0.95, "storescu straight"),),
    ),
    Row(
        "relay-multiframe",
        "Relay one instance of 1 GB to storescp",
        {"gateway": partial(_relay, _gateway_relay, _storescp, lambda data: data.multiframe)},
        (Goal(GROWN, 100.0, at_least=False),),
        rounds=2,
    ),
]
