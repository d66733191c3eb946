"""Our side of C-MOVE for tests of retrieving: an acceptor of storage whose arrivals are recorded in the real ledger.

It is stock pynetdicom, so that a test can have it refuse an instance, and prefers transfer syntaxes in the order that the
retriever sets, like the gateway's own acceptor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import xxhash
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from gateway.domain import Content, InstanceIdentity, Provenance
from gateway.ledger import Ledger
from gateway.ledger.instances import Arrival, record
from tests.support.ports import HOST

_PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
ORDERS = {"j2k-first": [JPEG2000Lossless, *_PLAIN], "uncompressed-first": [*_PLAIN, JPEG2000Lossless]}


class Correlator(Protocol):
    """What the retriever offers to intake."""

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> int | None: ...

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None: ...


@dataclass
class Reception:
    """What arrived, and how it is answered: `refuse(nth, uid)` gives a status for the nth C-STORE, or None for a good one."""

    ledger: Ledger
    retriever: Correlator | None = None
    refuse: Callable[[int, str], int | None] = lambda _nth, _uid: None
    source: str | None = "archive"
    ae_title: str = "GATEWAY"
    port: int = 0
    arrived: list[str] = field(default_factory=list)
    _server: Any = None
    _asked: int = 0

    @contextmanager
    def running(self) -> Iterator[Reception]:
        """Listen until the context ends."""
        self._ae = AE(ae_title=self.ae_title)
        self._ae.maximum_associations = 64
        self.set_order(self.source or "", "j2k-first")
        server = self._ae.make_server((HOST, 0), evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self._server = server
        self.port = server.socket.getsockname()[1]
        self._ae._servers.append(server)
        server.service_actions = lambda: None
        listening = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        listening.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            listening.join(10)

    def set_order(self, source: str, order: str) -> None:
        """Prefer transfer syntaxes in `order` from the next association on."""
        ae = AE()
        for context in AllStoragePresentationContexts[:120]:
            ae.add_supported_context(context.abstract_syntax, ORDERS[order])
        self._ae._supported_contexts = ae._supported_contexts
        if self._server is not None:
            self._server.contexts = ae.supported_contexts

    def _store(self, event: evt.Event) -> int:
        uid, request = str(event.request.AffectedSOPInstanceUID), event.request
        self._asked += 1
        refusal = self.refuse(self._asked, uid)
        if refusal is not None and refusal & 0xF000 != 0xB000:
            return refusal
        originator = str(request.MoveOriginatorApplicationEntityTitle or "").strip() or None
        provenance = Provenance(
            calling_ae=str(event.assoc.requestor.ae_title).strip(),
            called_ae=self.ae_title,
            address=HOST,
            association="test",
            source=self.source,
            move_originator_ae=originator,
            move_originator_message_id=request.MoveOriginatorMessageID,
        )
        self._record(provenance, uid, event)
        return refusal or 0x0000

    def _record(self, provenance: Provenance, uid: str, event: evt.Event) -> None:
        data = event.request.DataSet.getvalue()
        dataset = event.dataset
        identity = InstanceIdentity(
            str(event.request.AffectedSOPClassUID),
            uid,
            str(event.context.transfer_syntax),
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
        )
        content = Content(f"spool:{uid}:{self._asked}", 0, len(data), xxhash.xxh3_128_hexdigest(data))
        retrieval = self.retriever.correlate(provenance, uid) if self.retriever else None
        arrival = Arrival(identity, provenance, content, (), at=time.time(), retrieval_id=retrieval)
        self.ledger.write(lambda connection: record(connection, arrival))
        self.arrived.append(uid)
        if self.retriever:
            self.retriever.arrived(retrieval, uid, len(data))
