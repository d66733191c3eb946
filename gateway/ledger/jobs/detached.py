"""Pulls and sends that go on in the gateway without their command: what was asked, and whether it is to be carried on.

A row of `jobs` of its own: what a pull retrieves has its own job, as without it. Functions that change something belong into
`Ledger.write`. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import Connection, select, true

from gateway.ledger.database.schema import jobs
from gateway.ledger.jobs.planning import detach
from gateway.ledger.jobs.retrievals import JobState, open_job, set_job_state

DetachedKind = Literal["pull", "send"]


@dataclass(frozen=True, slots=True)
class DetachedJob:
    """One command that was left to the gateway; `criteria` is the request as JSON."""

    id: int
    kind: DetachedKind
    criteria: str
    state: JobState
    detached: bool
    created_at: float
    changed_at: float


def leave(connection: Connection, kind: DetachedKind, criteria: str, *, now: float) -> int:
    """Record that a command is left to the gateway, or the same one again; return the id of its job."""
    job = open_job(connection, kind, _fingerprint(kind, criteria), criteria, reopen=True, now=now)
    detach(connection, job.id, True)
    return job.id


def end(connection: Connection, job_id: int, state: JobState, *, carried_on: bool, now: float) -> None:
    """Record how it ended, and whether the next start carries it on."""
    set_job_state(connection, job_id, state, now=now)
    detach(connection, job_id, carried_on)


def detached_jobs(connection: Connection, *, job_id: int | None = None) -> Sequence[DetachedJob]:
    """Return the commands that were ever left to the gateway, the newest first, or the one with the id."""
    only = true() if job_id is None else jobs.c.id == job_id
    rows = connection.execute(select(jobs).where(jobs.c.kind.in_(("pull", "send")), only).order_by(jobs.c.id.desc()))
    return [
        DetachedJob(
            row.id, cast(DetachedKind, row.kind), row.criteria, row.state, bool(row.detached), row.created_at, row.changed_at
        )
        for row in rows
        if row.fingerprint == _fingerprint(row.kind, row.criteria)
    ]


def _fingerprint(kind: str, criteria: str) -> str:
    """Return what no job of a pull itself has."""
    return hashlib.sha256(f"detached {kind} {criteria}".encode()).hexdigest()
