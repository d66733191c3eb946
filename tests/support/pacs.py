"""A source PACS made of stock pynetdicom whose every C-MOVE a test decides: it may lie, forget, refuse, break and grow.

C-ECHO and C-FIND are answered from `datasets`; each C-MOVE is carried out by `script`, which gets an `Order` and says by its
methods what is sent to the move destination and what is answered. `honest` is what a good PACS does. With `gets` it serves C-GET.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, Association, _config, evt
from pynetdicom.dimse_primitives import C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from tests.support.ports import HOST
from tests.support.stock import only_requesting
from tests.support.waiting import wait_until

_config.LOG_HANDLER_LEVEL = "none"
_LITTLE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LEVELS = {"STUDY": _KEYS[:1], "SERIES": _KEYS[:2], "IMAGE": _KEYS}


class Refused(Exception):
    """The move destination took no association."""


@dataclass
class Order:
    """One C-MOVE that the PACS was asked for, the `number`th since it started."""

    pacs: Pacs
    number: int
    identifier: Dataset
    destination: str
    message_id: int
    _association: Association
    _request: C_MOVE
    _context_id: int
    _syntax: Any
    propose: list[Dataset] | None = None
    """Data sets to propose presentation contexts for; None: the selected ones."""

    @property
    def level(self) -> str:
        """STUDY, SERIES or IMAGE."""
        return str(self.identifier.QueryRetrieveLevel)

    @property
    def selected(self) -> list[Dataset]:
        """Data sets of the PACS that the identifier names."""
        return [dataset for dataset in self.pacs.datasets if _matches(dataset, self.identifier)]

    @property
    def cancelled(self) -> bool:
        """Whether C-CANCEL came."""
        return self.message_id in self._association.dimse.cancel_req

    def wait_for_cancel(self) -> None:
        """Wait until C-CANCEL came."""
        wait_until(lambda: self.cancelled, "C-CANCEL", pause_s=0.01)

    def pending(self, remaining: int, completed: int, failed: int = 0) -> None:
        """Answer FF00 with counts."""
        self._respond(0xFF00, remaining, completed, failed, ())

    def final(self, status: int, completed: int = 0, failed: int = 0, failed_uids: Sequence[str] = ()) -> None:
        """Answer the final response, whatever was sent."""
        self._respond(status, None, completed, failed, failed_uids)

    def abort(self) -> None:
        """Abort the association of the C-MOVE."""
        self._association.abort()

    def close(self) -> None:
        """Close the connection of the C-MOVE without a word."""
        self._association.dul.socket.close()

    @contextmanager
    def sending(
        self, *, originator: bool = True, one_context: bool = False, calling_ae: str = ""
    ) -> Iterator[Callable[[Dataset], int | None]]:
        """Associate with the move destination; gives a function that sends an instance and returns the status.

        `originator` says whether (0000,1030) and (0000,1031) are sent. With `one_context` all transfer syntaxes of a SOP class
        are proposed in one context, as dcmqrscp does; an instance in another syntax than the accepted one fails with None.
        """
        host, port = self.pacs.destinations[self.destination]
        ae = AE(ae_title=calling_ae or self.pacs.ae_title)
        for sop_class, syntaxes in _contexts(self.propose or self.selected or self.pacs.datasets, one_context):
            ae.add_requested_context(sop_class, syntaxes)
        secure = (self.pacs.tls[1], host) if self.pacs.tls else None
        association = ae.associate(host, port, ae_title=self.destination, tls_args=secure)
        if not association.is_established:
            raise Refused(self.destination)
        who = {"originator_aet": self.pacs.caller, "originator_id": self.message_id} if originator else {}

        def send(dataset: Dataset) -> int | None:
            with self.pacs.lock:
                self.pacs.sent.append(str(dataset.SOPInstanceUID))
                number = len(self.pacs.sent)
            try:
                answer = association.send_c_store(dataset, msg_id=number % 65535 + 1, **who)
            except ValueError:
                return None
            return int(answer.Status) if "Status" in answer else None

        with only_requesting(association):
            try:
                yield send
            finally:
                association.release()

    def _respond(self, status: int, remaining: int | None, completed: int, failed: int, failed_uids: Sequence[str]) -> None:
        response = C_MOVE()
        response.MessageIDBeingRespondedTo = self.message_id
        response.AffectedSOPClassUID = self._request.AffectedSOPClassUID
        response.Status = status
        if remaining is not None:
            response.NumberOfRemainingSuboperations = remaining
        response.NumberOfCompletedSuboperations = completed
        response.NumberOfFailedSuboperations = failed
        response.NumberOfWarningSuboperations = 0
        if failed_uids:
            failures = Dataset()
            failures.FailedSOPInstanceUIDList = list(failed_uids)
            encoded = encode(failures, self._syntax.is_implicit_VR, self._syntax.is_little_endian)
            response.Identifier = BytesIO(encoded or b"")
        self._association.dimse.send_msg(response, self._context_id)


_LOOK_S = 0.02
"""Seconds between two looks of the server whether it is to stop: its own half second is longer than most tests."""

Script = Callable[[Order], None]


def honest(order: Order) -> None:
    """Send everything, count truly, and answer as PS3.4 §C.4.2.1.5 says."""
    done, failed = 0, list[str]()
    todo = order.selected
    try:
        with order.sending() as send:
            for dataset in todo:
                status = send(dataset)
                if status is None or status & 0xF000 in {0xA000, 0xC000}:
                    failed.append(str(dataset.SOPInstanceUID))
                else:
                    done += 1
                order.pending(len(todo) - done - len(failed), done, len(failed))
    except Refused:
        failed = [str(dataset.SOPInstanceUID) for dataset in todo]
    status = 0x0000 if not failed else 0xB000 if done else 0xA702
    order.final(status, done, len(failed), failed)


@dataclass
class Pacs:
    """The PACS on a port of its own; use `running`. Change `script` to have it lie."""

    destinations: dict[str, tuple[str, int]]
    datasets: list[Dataset] = field(default_factory=list)
    script: Script = honest
    ae_title: str = "ARCHIVE"
    image_level: bool = True
    """Whether C-FIND is answered at IMAGE level; A900 otherwise."""

    series_level: bool = True
    counts: Callable[[int], int | None] = lambda count: count
    """The answered count for a number of related instances; None leaves the attribute out."""

    lists: Callable[[Dataset, int], bool] = lambda _dataset, _finds: True
    """Whether an instance is listed in the nth C-FIND."""

    refuse_find: Callable[[str, int], int | None] = lambda _level, _finds: None
    """The status with which the nth C-FIND, at a level, is refused; None answers it."""

    gets: Callable[[int, str], int | None] | None = None
    """The status that ends a C-GET in place of its nth instance, given the instance's UID; None sends it.

    None in place of the function: C-GET is not supported.
    """

    get_orders: list[Dataset] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    tls: Any = None
    """The SSL contexts of the acceptor and of the requestor; None: plain."""

    caller: str = "GATEWAY"
    port: int = 0
    orders: list[Order] = field(default_factory=list)
    finds: list[Dataset] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    late: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Listen until the context ends."""
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = 32
        for service in (Verification, StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove):
            ae.add_supported_context(service, _LITTLE)
        if self.gets is not None:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet, _LITTLE)
            for sop_class, syntaxes in _contexts(self.datasets, one_context=True):
                ae.add_supported_context(sop_class, syntaxes, scu_role=False, scp_role=True)
        _ORDERS[id(ae)] = self._ordered
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)]
        server = ae.make_server((HOST, 0), ssl_context=self.tls and self.tls[0], evt_handlers=handlers)
        self.port = server.socket.getsockname()[1]
        ae._servers.append(server)
        server.service_actions = lambda: None  # it would collect garbage every few looks
        listening = threading.Thread(target=server.serve_forever, args=(_LOOK_S,), daemon=True)
        listening.start()
        try:
            yield self
        finally:
            for thread in self.late:
                thread.join(30)
            server.shutdown()
            server.server_close()
            listening.join(10)
            _ORDERS.pop(id(ae))

    def later(self, work: Callable[[], None]) -> None:
        """Do `work` on a thread of its own, after the answer."""
        thread = threading.Thread(target=work, daemon=True)
        self.late.append(thread)
        thread.start()

    def uids(self) -> list[str]:
        """The SOP Instance UIDs of what it holds."""
        return [str(dataset.SOPInstanceUID) for dataset in self.datasets]

    def _ordered(self, association: Association, request: C_MOVE, context: Any) -> None:
        syntax = context.transfer_syntax[0]
        identifier = decode(request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian)
        with self.lock:
            number = len(self.orders) + 1
            order = Order(
                self,
                number,
                identifier,
                str(request.MoveDestination).strip(),
                int(request.MessageID),
                association,
                request,
                context.context_id,
                syntax,
            )
            self.orders.append(order)
        if order.destination not in self.destinations:
            order.final(0xA801)
            return
        self.script(order)

    def _get(self, event: evt.Event) -> Iterator[Any]:
        """Send what is selected on the association itself, until it is cancelled or `gets` ends it."""
        assert self.gets is not None
        self.get_orders.append(event.identifier)
        todo = [dataset for dataset in self.datasets if _matches(dataset, event.identifier)]
        yield len(todo)
        for dataset in todo:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            self.got.append(str(dataset.SOPInstanceUID))
            status = self.gets(len(self.got), self.got[-1])
            if status is not None:
                yield status, None
                return
            yield 0xFF00, dataset

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        with self.lock:
            self.finds.append(query)
            number = len(self.finds)
        level = str(query.QueryRetrieveLevel)
        refusal = self.refuse_find(level, number)
        if refusal is not None:
            yield refusal, None
            return
        if (level == "IMAGE" and not self.image_level) or (level == "SERIES" and not self.series_level):
            yield 0xA900, None
            return
        seen = set[str]()
        listed = [dataset for dataset in self.datasets if self.lists(dataset, number)]
        for dataset in listed:
            unique = str(dataset[_LEVELS[level][-1]].value)
            if unique in seen or not _matches(dataset, query):
                continue
            seen.add(unique)
            yield 0xFF00, self._match(dataset, level, query, listed)

    def _match(self, dataset: Dataset, level: str, query: Dataset, listed: list[Dataset]) -> Dataset:
        match = Dataset()
        match.QueryRetrieveLevel = level
        for keyword in _LEVELS[level]:
            setattr(match, keyword, dataset[keyword].value)
        for element in query:
            if element.keyword in dataset and element.keyword not in match:
                match[element.keyword] = dataset[element.keyword]
        if level in {"STUDY", "SERIES"}:
            key = _LEVELS[level][-1]
            count = self.counts(sum(other[key].value == dataset[key].value for other in listed))
            if count is not None:
                setattr(match, "NumberOfStudyRelatedInstances" if level == "STUDY" else "NumberOfSeriesRelatedInstances", count)
        return match


_ORDERS: dict[int, Callable[[Association, C_MOVE, Any], None]] = {}
_stock = QueryRetrieveServiceClass._move_scp


def _move_scp(self: QueryRetrieveServiceClass, request: C_MOVE, context: Any) -> None:
    ordered = _ORDERS.get(id(self.assoc.ae))
    if ordered is None:
        _stock(self, request, context)
        return
    ordered(self.assoc, request, context)


QueryRetrieveServiceClass._move_scp = _move_scp  # type: ignore[method-assign]


def _matches(dataset: Dataset, query: Dataset) -> bool:
    for keyword in (*_KEYS, "AccessionNumber", "PatientID"):
        wanted = query.get(keyword)
        if not wanted:
            continue
        values = {str(value) for value in (wanted if isinstance(wanted, list) or hasattr(wanted, "append") else [wanted])}
        if str(dataset.get(keyword, "")) not in values:
            return False
    return True


def _contexts(datasets: Sequence[Dataset], one_context: bool) -> list[tuple[str, list[str]]]:
    pairs = dict.fromkeys((str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in datasets)
    if not one_context:
        return [(sop_class, [syntax]) for sop_class, syntax in pairs]
    classes: dict[str, list[str]] = {}
    for sop_class, syntax in pairs:
        classes.setdefault(sop_class, []).append(syntax)
    return list(classes.items())
