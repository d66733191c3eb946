"""The operations of a recorded acceptor, asked by the gateway's requestor; the outcome in the form of `stock.operate`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.association.dimse.commitment import InstanceReference
from gateway.association.dimse.statuses import is_pending
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.association.upper.contexts import ProposedContext
from gateway.core.errors import AssociationError, AssociationRejected, DimseFailed
from tests.differential import stock
from tests.differential.stock import CT, LITTLE, Outcome
from tests.support.data import ct_dataset
from tests.support.sources import dataset_of


def operate(port: int, operations: Sequence[dict[str, Any]], *, timeout_s: float) -> dict[str, Any]:
    """Associate with the acceptor at `port` and do `operations`, the first as message 1."""
    deadlines = Deadlines(associate_s=timeout_s, response_s=timeout_s, send_s=timeout_s, release_s=timeout_s)
    contexts = [ProposedContext(uid, (LITTLE[0],) if uid == CT else tuple(LITTLE)) for uid in stock.abstract_syntaxes(operations)]
    outcome = Outcome()
    try:
        association = associate(RemoteAE("GATEWAY", "127.0.0.1", port), "STRANGER", contexts, deadlines=deadlines)
    except AssociationRejected as rejected:
        outcome.end, outcome.rejection = "rejected", [rejected.result, rejected.source, rejected.reason]
        return asdict(outcome)
    except AssociationError:
        outcome.end = "failed"
        return asdict(outcome)
    try:
        for number, operation in enumerate(operations, start=1):
            outcome.results.append(_do(association, operation, number, timeout_s))
    except AssociationError:
        outcome.end = "failed"
    association.release()
    return asdict(outcome)


def _do(association: Requestor, operation: dict[str, Any], number: int, timeout_s: float) -> dict[str, Any]:
    match operation["do"]:
        case "echo":
            return _status(association.echo)
        case "commitment":
            references = [InstanceReference(CT, uid) for uid in operation["uids"]]
            return _status(lambda: association.request_commitment("1.2.826.0.1.3680043.10.1338.99", references))
        case "store":
            return _store(association, operation)
        case "find":
            return _find(association, operation)
        case _:
            return _move(association, operation, number, timeout_s)


def _status(ask: Any) -> dict[str, Any]:
    try:
        ask()
    except DimseFailed as failed:
        return {"status": failed.status}
    return {"status": 0}


def _store(association: Requestor, operation: dict[str, Any]) -> dict[str, Any]:
    instance = ct_dataset(seed=operation["seed"], number=operation["number"], rows=operation["rows"])
    context = association.context_for(CT, LITTLE[0])
    if context is None:
        raise AssociationError("no context for CT")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance.dcm"
        instance.save_as(path, enforce_file_format=True)
        with dataset_of(path) as source:
            return {"status": association.store(context, instance.SOPInstanceUID, source).status}


def _find(association: Requestor, operation: dict[str, Any]) -> dict[str, Any]:
    matches: list[str] = []

    def ask() -> None:
        matches.extend(stock.encoded(match) for match in association.find(stock.query(operation["keys"])))

    return {**_status(ask), "matches": matches}


def _move(association: Requestor, operation: dict[str, Any], number: int, timeout_s: float) -> dict[str, Any]:
    responses = [
        {
            "status": response.status,
            "counts": [response.remaining, response.completed, response.failed, response.warning],
            "failed": list(response.failed_uids),
        }
        for response in association.move(
            stock.query(operation["keys"]),
            destination_ae=operation["destination"],
            message_id=number,
            response_s=timeout_s,
        )
    ]
    assert not is_pending(responses[-1]["status"])
    return {"responses": responses}
