"""pynetdicom as it comes, nothing of the gateway imported: acceptors that collect or permit everything, and a requestor.

``python -m tests.differential.stock PORT echo|store FILE …|find STUDY|commitment`` is that requestor as a program to record.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, UID_dictionary
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import AllStoragePresentationContexts

VERIFICATION, COMMITMENT = "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
STUDY_FIND, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
MAX_PDU_BYTES = 131072
TIMEOUT_S = 20.0
NO_SUCH_EVENT_TYPE = 0x0113
UNRECOGNIZED_OPERATION = 0x0211

ABSTRACT_SYNTAXES = {"echo": VERIFICATION, "find": STUDY_FIND, "move": STUDY_MOVE, "store": CT, "commitment": COMMITMENT}
"""The abstract syntax of an operation, by the operation's name."""


def quieten() -> None:
    """Let pynetdicom and pydicom keep quiet: what they read here is wrong on purpose."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # An acceptor copies its contexts for each association, 13,000 UIDs that never change.
    UID.__deepcopy__ = lambda uid, memo: uid


@contextmanager
def permissive(max_pdu_bytes: int) -> Iterator[int]:
    """Run an acceptor for all storage, verification and commitment; yield its port."""
    ae = AE("GATEWAY")
    ae.maximum_pdu_size = max_pdu_bytes
    known = [uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"]
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, known)
    for uid in (VERIFICATION, COMMITMENT, STUDY_FIND):
        ae.add_supported_context(uid, LITTLE, scu_role=uid == COMMITMENT or None, scp_role=uid == COMMITMENT or None)
    handlers: list[tuple[evt.InterventionEvent, Callable[[evt.Event], Any]]] = [
        (evt.EVT_C_STORE, lambda event: 0x0000),
        (evt.EVT_N_ACTION, lambda event: (0x0000, None)),
        (evt.EVT_N_EVENT_REPORT, lambda event: (0x0000, None)),
        (evt.EVT_C_FIND, lambda event: iter(())),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


@dataclass
class Taken:
    """Input of an acceptor on one association: every whole message, and every instance stored."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)


def digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def trimmed(text: str) -> str:
    """Return `text` without NUL and white space around it, of which pydicom strips any kind."""
    return text.strip("".join(map(chr, range(0x21))) + "\x85\xa0")


def plain(value: Any) -> Any:
    """Return the value of a command element as JSON has it; text without padding, several values as they stood."""
    if isinstance(value, int):
        return value
    values = [value or ""] if value is None or isinstance(value, str) else list(value)
    if values and all(isinstance(one, int) for one in values):
        return [int(one) for one in values]
    return trimmed("\\".join(str(one) for one in values))


class Collecting:
    """An acceptor whose storage SOP classes and transfer syntaxes are given; `taken` is by the requestor's port."""

    def __init__(self, storage: Sequence[str], transfer_syntaxes: Sequence[str]) -> None:
        self._taken: dict[int, Taken] = {}
        self._lock = threading.Lock()
        ae = AE("GATEWAY")
        ae.require_called_aet = True
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = 1000
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
        for uid in storage:
            ae.add_supported_context(uid, list(transfer_syntaxes), scu_role=True, scp_role=False)
        ae.add_supported_context(VERIFICATION, LITTLE)
        ae.add_supported_context(COMMITMENT, LITTLE, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_N_ACTION, lambda event: (UNRECOGNIZED_OPERATION, None)),
            (evt.EVT_DIMSE_RECV, self._message),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = server.socket.getsockname()[1]

    def take(self, port: int, wait_s: float) -> dict[str, Any]:
        """Return what came from `port`, once its connection is closed or `wait_s` are over."""
        taken = self._of(port)
        taken.closed.wait(wait_s)
        with self._lock:
            del self._taken[port]
        return {"messages": taken.messages, "instances": taken.instances, "closed": taken.closed.is_set()}

    def _of(self, port: int) -> Taken:
        with self._lock:
            return self._taken.setdefault(port, Taken())

    def _message(self, event: evt.Event) -> None:
        message = event.message
        command = {element.keyword: plain(element.value) for element in message.command_set if element.keyword}
        data = message.data_set.getvalue() if command.get("CommandDataSetType") != 0x0101 else None
        self._of(event.assoc.requestor.port).messages.append(
            {"context_id": message.context_id, "command": command, "data": digest(data)}
        )

    def _store(self, event: evt.Event) -> int:
        request = event.request
        data = request.DataSet.getvalue()
        self._of(event.assoc.requestor.port).instances.append(
            {
                "sop_class": str(request.AffectedSOPClassUID),
                "sop_instance": str(request.AffectedSOPInstanceUID),
                "transfer_syntax": str(event.context.transfer_syntax),
                "data": digest(data),
            }
        )
        return 0x0000

    def _report(self, event: evt.Event) -> tuple[int, None]:
        return (0x0000 if event.request.EventTypeID in (1, 2) else NO_SUCH_EVENT_TYPE), None

    def _closed(self, event: evt.Event) -> None:
        self._of(event.assoc.requestor.port).closed.set()


@dataclass
class Outcome:
    """Results of a requestor's operations: one entry each, until one failed. `end` is released, rejected, or failed."""

    results: list[dict[str, Any]] = field(default_factory=list)
    end: str = "released"
    rejection: list[int] = field(default_factory=list)


def operate(
    port: int, title: str, operations: Sequence[dict[str, Any]], *, calling: str = "STRANGER", timeout_s: float = 30.0
) -> dict[str, Any]:
    """Associate with `title` on `port` and do `operations`, the first as message 1; return an `Outcome` as a dict."""
    ae = AE(calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.maximum_pdu_size = MAX_PDU_BYTES
    contexts = [build_context(uid, [LITTLE[0]] if uid == CT else LITTLE) for uid in abstract_syntaxes(operations)]
    association = ae.associate("127.0.0.1", port, contexts, ae_title=title, max_pdu=MAX_PDU_BYTES)
    outcome = Outcome()
    if not association.is_established:
        outcome.end = "rejected" if association.is_rejected else "failed"
        if association.is_rejected:
            primitive = association.acceptor.primitive
            outcome.rejection = [primitive.result, primitive.result_source, primitive.diagnostic]
        return asdict(outcome)
    for number, operation in enumerate(operations, start=1):
        result = _do(association, operation, number)
        if result is None:
            outcome.end = "failed"
            break
        outcome.results.append(result)
    if association.is_established:
        association.release()
    return asdict(outcome)


def abstract_syntaxes(operations: Sequence[dict[str, Any]]) -> list[str]:
    """Return what `operations` are asked under, each once, in the order of their first use."""
    return list(dict.fromkeys(ABSTRACT_SYNTAXES[operation["do"]] for operation in operations))


def _do(association: Association, operation: dict[str, Any], number: int) -> dict[str, Any] | None:
    """Do one operation; None where it was not answered as it has to be."""
    try:
        match operation["do"]:
            case "echo":
                return _status(association.send_c_echo(number))
            case "store":
                return _status(association.send_c_store(_instance(operation), number))
            case "find":
                return _find(association, operation, number)
            case "move":
                return _move(association, operation, number)
            case _:
                return _commit(association, operation, number)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        # pynetdicom raises these for nonsense, or for a context that was not accepted.
        return None


def _status(response: Dataset) -> dict[str, Any] | None:
    return {"status": int(response.Status)} if "Status" in response else None


def _instance(operation: dict[str, Any]) -> Dataset:
    if "path" in operation:
        return pydicom.dcmread(operation["path"])
    from tests.support.data import ct_dataset

    return ct_dataset(seed=operation["seed"], number=operation["number"], rows=operation["rows"])


def query(keys: dict[str, str]) -> Dataset:
    """Return an identifier with `keys`."""
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def encoded(identifier: Dataset) -> str:
    """Return `identifier` in hexadecimal, Implicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    write_dataset(buffer, identifier)
    return buffer.getvalue().hex()


def _find(association: Association, operation: dict[str, Any], number: int) -> dict[str, Any] | None:
    matches = []
    # Attributes that were not asked for are ignored (PS3.4 §C.4.1.1.3): pynetdicom passes them on, the gateway skips them.
    asked = {*query(operation["keys"]).keys(), 0x00080005}
    for status, identifier in association.send_c_find(query(operation["keys"]), STUDY_FIND, number):
        if "Status" not in status:
            return None
        if status.Status not in (0xFF00, 0xFF01):
            return {"status": int(status.Status), "matches": matches}
        if identifier is not None:
            for tag in set(identifier.keys()) - asked:
                del identifier[tag]
            matches.append(encoded(identifier))
    return None


COUNTS = ("Remaining", "Completed", "Failed", "Warning")


def _move(association: Association, operation: dict[str, Any], number: int) -> dict[str, Any] | None:
    responses = []
    for status, identifier in association.send_c_move(query(operation["keys"]), operation["destination"], STUDY_MOVE, number):
        if "Status" not in status:
            return None
        failed = (identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None) or ()
        responses.append(
            {
                "status": int(status.Status),
                "counts": [status.get(f"NumberOf{count}Suboperations") for count in COUNTS],
                "failed": [failed] if isinstance(failed, str) else [str(uid) for uid in failed],
            }
        )
    return {"responses": responses} if responses and responses[-1]["status"] not in (0xFF00, 0xFF01) else None


def _commit(association: Association, operation: dict[str, Any], number: int) -> dict[str, Any] | None:
    request = Dataset()
    request.TransactionUID = "1.2.826.0.1.3680043.10.1338.99"
    request.ReferencedSOPSequence = DicomSequence()
    for uid in operation["uids"]:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
        request.ReferencedSOPSequence.append(item)
    return _status(association.send_n_action(request, 1, COMMITMENT, COMMITMENT_INSTANCE, number)[0])


def _main(port: str, operation: str, *arguments: str) -> None:
    quieten()
    operations: list[dict[str, Any]] = {
        "echo": [{"do": "echo"}],
        "store": [{"do": "store", "path": path} for path in arguments if Path(path).exists()],
        "find": [{"do": "find", "keys": {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "".join(arguments), "PatientID": ""}}],
        "commitment": [{"do": "commitment", "uids": ["1.2.3", "1.2.4"]}],
    }[operation]
    operate(int(port), "GATEWAY", operations)


if __name__ == "__main__":
    _main(*sys.argv[1:])
