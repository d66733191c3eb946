"""Our side of C-MOVE for tests of retrieving: the real acceptor, intake, spool and ledger, of which a test may refuse instances."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gateway.association.dimse.commitment import CommitmentReport
from gateway.association.dimse.services import AssociationInfo, ListenerSpec, StorageService, StoreRequest
from gateway.association.dimse.services import Reception as Receiving
from gateway.association.scp.acceptor import Acceptor
from gateway.association.scp.admission import KnownSources
from gateway.association.scp.service_classes import usual
from gateway.config.settings import Settings
from gateway.core.domain import Provenance, Purpose
from gateway.core.errors import Refusal
from gateway.intake import Recorder, StorageIntake
from gateway.ledger import Ledger
from gateway.ledger.received.instances import Recorded
from gateway.spool import Spool
from tests.support.ports import HOST


class Correlator(Protocol):
    """The side of the retriever that intake uses."""

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> Purpose | None: ...

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None: ...

    def turned_away(self, calling_ae: str, called_ae: str, address: str) -> None: ...

    def capturing(self, storage: StorageService) -> StorageService: ...


@dataclass
class Warned:
    """An instance that is stored and answered with a warning."""

    inner: Receiving
    status: int

    def write(self, fragments: Sequence[memoryview]) -> None:
        self.inner.write(fragments)

    def commit(self) -> int:
        self.inner.commit()
        return self.status

    def discard(self) -> None:
        self.inner.discard()


@dataclass
class Reception:
    """The gateway's reception on a port, and the UIDs that arrived.

    `refuse(nth, uid)` gives the status that refuses the nth C-STORE, or None to accept it.
    """

    settings: Settings
    ledger: Ledger
    spool: Spool
    refuse: Callable[[int, str], int | None] = lambda _nth, _uid: None
    retriever: Correlator | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    arrived: list[str] = field(default_factory=list)
    _asked: int = 0

    @contextmanager
    def running(self, port: int = 0) -> Iterator[Reception]:
        """Listen on `port` until the context ends."""
        self.admission = KnownSources(
            self.settings, turned_away=lambda *caller: self.retriever.turned_away(*caller) if self.retriever else None
        )
        self.recorder = Recorder(self.spool, self.ledger, recorded=self._recorded)
        self._intake = StorageIntake(self.spool, self.recorder, route=lambda _attributes: {}, correlate=self._correlate)
        acceptor = Acceptor([ListenerSpec(HOST, port, self.tls)], admission=self.admission, services=usual(self, self))
        with self.recorder:
            acceptor.start()
            self.port = acceptor.endpoints[0][1]
            try:
                yield self
            finally:
                acceptor.close()

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Receiving:
        """Take an instance, unless the test refuses it."""
        self._asked += 1
        status = self.refuse(self._asked, request.sop_instance_uid)
        if status is not None and status & 0xF000 != 0xB000:
            raise Refusal(status, "refused by the test")
        storage = self.retriever.capturing(self._intake) if self.retriever else self._intake
        inner = storage.receive(association, request)
        return inner if status is None else Warned(inner, status)

    def report(self, report: CommitmentReport) -> int:
        """Nobody commits to anything here."""
        raise Refusal(0x0110, "not expected")

    def _correlate(self, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
        return self.retriever.correlate(provenance, sop_instance_uid) if self.retriever else None

    def _turned_away(self, calling_ae: str, called_ae: str, address: str) -> None:
        if self.retriever:
            self.retriever.turned_away(calling_ae, called_ae, address)

    def _recorded(self, batch: Sequence[Recorded]) -> None:
        for arrival in (recorded.arrival for recorded in batch):
            self.arrived.append(arrival.identity.sop_instance_uid)
            if self.retriever:
                self.retriever.arrived(arrival.retrieval_id, arrival.identity.sop_instance_uid, arrival.content.length)


def reception(folder: Path, settings: Settings, ledger: Ledger, **more: Any) -> Reception:
    """A reception with its spool in `folder`."""
    return Reception(settings, ledger, Spool(folder / "spool", reserve_bytes=0), **more)
