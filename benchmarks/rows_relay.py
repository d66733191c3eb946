"""Relays: what comes in goes out again. Over once the destination has everything and the gateway's ledger knows it.

Time begins with the sender's first A-ASSOCIATE-RQ, whoever it sends to, or with the command that has a study moved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from benchmarks import receivers
from benchmarks.archives import Archive, dcmqrscp, orthanc_archive
from benchmarks.control import all_delivered, client
from benchmarks.datasets import DataSet
from benchmarks.harness import CPU_GB, GROWN, RATE, Bench, Goal, Metrics, Party, Row, transfer
from benchmarks.process import Meter
from benchmarks.rows_receive import Pick, ct
from benchmarks.senders import Target, dcmtk
from gateway.association.scu.requestor import RemoteAE, associate, next_message_id
from gateway.association.upper.contexts import STUDY_ROOT_MOVE, plan_contexts
from gateway.control.events import PULL
from gateway.control.wire import PullCommand
from tests.support.certificates import Files
from tests.support.gateway import Gateway, dicom_destination, source
from tests.support.ports import HOST
from tests.support.waiting import wait_until

ARRIVAL_S = 300.0
LOOK_S = 0.02

FILE_HEAD_BYTES = 1024
"""File Meta Information differs from one writer to the other by less."""

LUA = """function OnStoredInstance(instanceId, tags, metadata)
  SendToModality(instanceId, 'destination')
end
"""


@dataclass(frozen=True)
class Destination:
    """Where a relay sends to; `has_whole` tells whether so many instances of so many bytes in all are there to their ends."""

    target: Target
    has_whole: Callable[[int, int], bool]

    def has(self, *sent: DataSet) -> None:
        """Wait until it has everything.

        Raises:
            AssertionError: it never had.
        """
        count, size = sum(data.count for data in sent), sum(data.size_bytes for data in sent)
        wait_until(lambda: self.has_whole(count, size), f"{count} at the destination", deadline_s=ARRIVAL_S, pause_s=LOOK_S)

    def table(self) -> dict[str, object]:
        """Return it as the gateway's configuration names it."""
        return dicom_destination(
            self.target.port, ae_title=self.target.ae_title, tls=self.target.tls, verify="status", associations=4
        )


@dataclass(frozen=True)
class Relay:
    """A running relay; `settle` waits until it has nothing left to do for so many instances."""

    target: Target
    pid: int
    settle: Callable[[int], None] = lambda _count: None


ToDestination = Callable[[Path], AbstractContextManager[Destination]]
ThroughRelay = Callable[[Bench, Path, Destination], AbstractContextManager[Relay]]


@contextmanager
def _orthanc(folder: Path, port: int | None = None, tls: Files | None = None) -> Iterator[Destination]:
    with receivers.orthanc(folder / "destination", port=port, tls=tls) as (receiver, running):
        yield Destination(receiver.target, lambda count, _size: running.count() >= count)


@contextmanager
def _storescp(folder: Path) -> Iterator[Destination]:
    with receivers.storescp(folder / "destination", "--fork") as receiver:
        kept = folder / "destination" / "received"
        yield Destination(receiver.target, lambda count, size: _whole(kept, count, size))


def _whole(folder: Path, count: int, size: int) -> bool:
    """Tell whether all files are written: storescp creates each at its beginning."""
    sizes = [path.stat().st_size for path in folder.iterdir()]
    return len(sizes) >= count and sum(sizes) >= size - count * FILE_HEAD_BYTES


@contextmanager
def _gateway_relay(bench: Bench, folder: Path, destination: Destination) -> Iterator[Relay]:
    to = {"destination": destination.table()}
    with receivers.gateway(folder, destinations=to, earlier=bench.data.earlier) as (receiver, gateway):
        yield Relay(receiver.target, receiver.pid, lambda count: all_delivered(gateway, count))


@contextmanager
def _orthanc_relay(_bench: Bench, folder: Path, destination: Destination) -> Iterator[Relay]:
    """Run Orthanc with autorouting by Lua, as its documentation shows it."""
    script = folder / "autorouting.lua"
    script.write_text(LUA)
    with receivers.orthanc(folder, LuaScripts=[str(script)], OverwriteInstances=True) as (receiver, running):
        running.add_modality("destination", destination.target.ae_title, destination.target.port, Timeout=int(ARRIVAL_S))
        yield Relay(receiver.target, receiver.pid)


@contextmanager
def _eostudy_relay(_bench: Bench, folder: Path, destination: Destination) -> Iterator[Relay]:
    """Run storescp that sends a study on once nothing came for a second, the least it can be told to wait."""
    target = destination.target
    onward = f"storescu -aec {target.ae_title} -pdu 131072 --max-send-pdu 131072 +sd {HOST} {target.port} #p"
    options = ("-su", "study", "-xcs", onward, "-tos", "1")
    with receivers.storescp(folder, *options, bit_preserving=False) as receiver:
        yield Relay(receiver.target, receiver.pid)


def _relay(through: ThroughRelay, to: ToDestination, pick: Pick, bench: Bench, folder: Path) -> Metrics:
    """Send with one dcmsend to the relay, which has relayed a few instances before."""
    data, warm = pick(bench.data), bench.data.warm
    with to(folder) as destination, through(bench, folder, destination) as relay:
        dcmtk("dcmsend", relay.target, data=warm, folder=folder)
        destination.has(warm)
        relay.settle(warm.count)
        bench.settle()
        meter = Meter(relay.pid)
        window = dcmtk("dcmsend", relay.target, data=data, folder=folder)
        destination.has(warm, data)
        relay.settle(warm.count + data.count)
        return transfer(data, window.until_now(), meter.stop())


def _direct(program: str, to: ToDestination, pick: Pick, bench: Bench, folder: Path) -> Metrics:
    """Send straight to the destination on one association."""
    data, warm = pick(bench.data), bench.data.warm
    with to(folder) as destination:
        dcmtk(program, destination.target, data=warm, folder=folder)
        bench.settle()
        window = dcmtk(program, destination.target, data=data, folder=folder)
        destination.has(warm, data)
        return transfer(data, window.seconds)


def _tls_relay(bench: Bench, folder: Path) -> Metrics:
    return _relay(_gateway_relay, partial(_orthanc, tls=bench.tls), ct, bench, folder)


def _tls_direct(bench: Bench, folder: Path) -> Metrics:
    return _direct("storescu", partial(_orthanc, tls=bench.tls), ct, bench, folder)


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
                earlier=bench.data.earlier,
            )
        )
        bench.settle()
        meter, began = Meter(receiver.pid), time.perf_counter()
        with _pulling(gateway, data.study_uid):
            destination.has(data)
            all_delivered(gateway, data.count)
            return transfer(data, time.perf_counter() - began, meter.stop())


@contextmanager
def _pulling(gateway: Gateway, study_uid: str) -> Iterator[None]:
    """Have the gateway pull a study meanwhile; the verdict is awaited at the end."""
    command = PullCommand(source="archive", study_uids=(study_uid,))
    with client(gateway) as asked, asked.stream("/pull", command, PULL) as events:
        reader = threading.Thread(target=lambda: list(events), daemon=True)
        reader.start()
        yield
        reader.join(ARRIVAL_S)
        assert not reader.is_alive(), "the pull never ended"


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
        destination.has(data)
        return transfer(data, time.perf_counter() - began)


def _moves(archive_of: Callable[[Bench], Archive]) -> dict[str, Party]:
    return {"gateway": partial(_pulled, archive_of), "C-MOVE straight": partial(_moved, archive_of)}


_MOVE_GOALS = (Goal(RATE, 0.9, "C-MOVE straight"),)

ROWS = [
    Row(
        "relay-orthanc",
        "Relay CT: dcmsend → relay → Orthanc",
        {
            "gateway": partial(_relay, _gateway_relay, _orthanc, ct),
            "Orthanc with Lua": partial(_relay, _orthanc_relay, _orthanc, lambda data: data.slow),
            "dcmsend straight": partial(_direct, "dcmsend", _orthanc, ct),
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
            "gateway": partial(_relay, _gateway_relay, _storescp, ct),
            "storescp --exec-on-eostudy": partial(_relay, _eostudy_relay, _storescp, ct),
            "dcmsend straight": partial(_direct, "dcmsend", _storescp, ct),
        },
        (Goal(RATE, None, "storescp --exec-on-eostudy"), Goal(CPU_GB, None, "storescp --exec-on-eostudy", at_least=False)),
        once=frozenset({"dcmsend straight"}),
    ),
    Row("relay-move-dcmqrscp", "Relay CT by C-MOVE from dcmqrscp to Orthanc", _moves(dcmqrscp), _MOVE_GOALS),
    Row("relay-move-orthanc", "Relay CT by C-MOVE from Orthanc to Orthanc", _moves(orthanc_archive), _MOVE_GOALS),
    Row(
        "relay-tls",
        "Relay CT into Orthanc over mutual TLS",
        {"gateway": _tls_relay, "storescu straight": _tls_direct},
        (Goal(RATE, 0.95, "storescu straight"),),
    ),
    Row(
        "relay-multiframe",
        "Relay one instance of 1 GB to storescp",
        {
            "gateway": partial(_relay, _gateway_relay, _storescp, lambda data: data.multiframe),
            "Orthanc with Lua": partial(_relay, _orthanc_relay, _storescp, lambda data: data.multiframe),
        },
        (Goal(GROWN, 100.0, at_least=False),),
        rounds=2,
        once=frozenset({"Orthanc with Lua"}),
    ),
]
