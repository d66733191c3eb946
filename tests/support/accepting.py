"""An `Acceptor` on a port of its own, with services that keep what they are given in memory."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.association.dimse.commitment import CommitmentReport
from gateway.association.dimse.services import Admitted, AssociationInfo, Limits, ListenerSpec, StoreRequest
from gateway.association.scp.acceptor import Acceptor
from gateway.association.scp.service_classes import usual
from gateway.association.upper.negotiation import J2K_FIRST
from gateway.association.upper.pdu import rejection
from gateway.core.throttle import Throttle
from tests.support.ports import HOST


@dataclass
class Stored:
    """One instance as the storage service got it."""

    association: AssociationInfo
    request: StoreRequest
    data_set: bytearray = field(default_factory=bytearray)
    writes: int = 0
    state: str = "open"


class Kept:
    """A reception in memory; `storage.on_write` and `on_commit` may raise or wait."""

    def __init__(self, storage: Storage, stored: Stored) -> None:
        self.storage = storage
        self.stored = stored

    def write(self, fragments: Sequence[memoryview]) -> None:
        assert self.stored.state == "open"
        self.storage.on_write(self.stored)
        self.stored.writes += 1
        if self.storage.keep:
            for fragment in fragments:
                self.stored.data_set += fragment

    def commit(self) -> int:
        assert self.stored.state == "open"
        self.stored.state = "committed"
        return self.storage.on_commit(self.stored)

    def discard(self) -> None:
        assert self.stored.state == "open"
        self.stored.state = "discarded"
        self.storage.discarded.set()


class Storage:
    """A storage service; `instances` is everything that was begun, in order."""

    def __init__(self) -> None:
        self.instances: list[Stored] = []
        self.keep = True
        self.discarded = threading.Event()
        self.on_receive: Callable[[StoreRequest], None] = lambda _request: None
        self.on_write: Callable[[Stored], None] = lambda _stored: None
        self.on_commit: Callable[[Stored], int] = lambda _stored: 0

    @property
    def committed(self) -> list[Stored]:
        return [stored for stored in self.instances if stored.state == "committed"]

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Kept:
        self.on_receive(request)
        stored = Stored(association, request)
        self.instances.append(stored)
        return Kept(self, stored)


class Commitment:
    """A commitment service; `reports` is what came."""

    def __init__(self) -> None:
        self.reports: list[CommitmentReport] = []
        self.on_report: Callable[[CommitmentReport], int] = lambda _report: 0

    def report(self, report: CommitmentReport) -> int:
        self.reports.append(report)
        return self.on_report(report)


@dataclass
class Anyone:
    """Admits whoever calls GATEWAY, as the source that its AE title names in `limits`; what callers showed is in `callers`.

    `order` is the acceptance order; `limits` are how many associations a source may have, and how fast it may send.
    """

    order: tuple[str, ...] = J2K_FIRST
    limits: dict[str, tuple[int | None, Throttle | None]] = field(default_factory=dict)
    callers: list[tuple[str, str, tuple[str, ...] | None]] = field(default_factory=list)

    def admit(self, *, calling_ae: str, called_ae: str, address: str, certificate_names: tuple[str, ...] | None) -> Admitted:
        self.callers.append((calling_ae, address, certificate_names))
        if called_ae != "GATEWAY":
            raise rejection(1, 1, 7)
        if calling_ae in self.limits:
            return Admitted(calling_ae, self.order, *self.limits[calling_ae])
        return Admitted(None, self.order)


@dataclass
class Accepting:
    """A running acceptor and its services."""

    acceptor: Acceptor
    storage: Storage
    commitment: Commitment
    admission: Anyone

    @property
    def port(self) -> int:
        return self.acceptor.endpoints[0][1]

    def connect(self, timeout_s: float = 20.0) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection((HOST, self.port), timeout_s)


@contextmanager
def accepting(limits: Limits | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Accepting]:
    """Run an acceptor until the context ends; short deadlines unless `limits` says otherwise."""
    storage, commitment, admission = Storage(), Commitment(), Anyone()
    acceptor = Acceptor(
        [ListenerSpec(HOST, 0, tls)], admission=admission, services=usual(storage, commitment), limits=limits or Limits()
    )
    acceptor.start()
    try:
        yield Accepting(acceptor, storage, commitment, admission)
    finally:
        acceptor.close()
