"""The result of each study of a migration: asked of the ledger until it is done, and a record from then on.

A study is done when it is complete, all of it is verified everywhere, and it is deleted from its source where that was asked. Its
line of the report is kept then, with its proofs: what is done with the same instances later changes the history of nothing.
The functions run in transactions of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from gateway.core.domain import WORKING, DeliveryState
from gateway.jobs.migrate.request import MigrationRequest
from gateway.ledger.deliveries import progress
from gateway.ledger.deliveries.progress import Scope, StudyDelivery
from gateway.ledger.jobs import planning
from gateway.ledger.jobs.planning import StudyReport

Line = dict[str, Any]


def lines(
    connection: Connection, job_id: int, request: MigrationRequest, destinations: Sequence[str], kept: Mapping[str, str]
) -> tuple[list[Line], dict[str, str]]:
    """Return a line for each planned study, and as text, by Study Instance UID, those that are done and not kept yet.

    `destinations` are those that it is brought to; without any, all that its instances are on their way to. `kept` has the reasons
    for which studies were not deleted from the source.
    """
    frozen = planning.outcomes(connection, job_id)
    states = progress.count_states(connection, Scope(job_id=job_id, destinations=tuple(destinations)))
    by_study: dict[str, list[StudyDelivery]] = {}
    for one in states:
        by_study.setdefault(one.study_instance_uid, []).append(one)
    found, done = list[Line](), dict[str, str]()
    for study in planning.report(connection, job_id):
        uid = study.study_instance_uid
        if uid in frozen:
            found.append(json.loads(frozen[uid]))
            continue
        line = _line(study, by_destination(by_study.get(uid, ())), kept.get(uid, ""), delete=request.delete_from_source)
        found.append(line)
        if line["done"]:
            done[uid] = json.dumps(line)
    return found, done


def is_settled(connection: Connection, job_id: int, destinations: Sequence[str]) -> bool:
    """Tell whether nothing of the migration is on its way any more."""
    states = progress.count_states(connection, Scope(job_id=job_id, destinations=tuple(destinations)))
    return not any(one.state in WORKING for one in states)


def by_destination(states: Sequence[StudyDelivery], study: str | None = None) -> Line:
    """Sum the deliveries, of one study or of all: destination to ``{"states": …, "proofs": …}``; pure."""
    summed: dict[str, dict[str, dict[str, int]]] = {}
    for row in states:
        if study is not None and row.study_instance_uid != study:
            continue
        of = summed.setdefault(row.destination, {"states": {}, "proofs": {}})
        of["states"][row.state] = of["states"].get(row.state, 0) + row.count
        if row.proof is not None:
            of["proofs"][row.proof] = of["proofs"].get(row.proof, 0) + row.count
    return dict(summed)


def _line(study: StudyReport, destinations: Mapping[str, Any], kept: str, *, delete: bool) -> Line:
    verified = [of["states"].get(DeliveryState.VERIFIED, 0) == sum(of["states"].values()) for of in destinations.values()]
    delivered = bool(destinations) or study.received == 0
    return {
        **asdict(study),
        "destinations": destinations,
        "kept": kept,
        "done": study.verdict == "complete" and delivered and all(verified) and (bool(study.deleted_at) or not delete),
    }
