"""Queries about jobs and retrievals: what was asked of a source, what it lists, what arrived, how it ended.

A job is one command; the same command given again (the same `fingerprint`) carries on with the same job until everything in
it was complete. A retrieval is one study of a job. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    union,
    update,
)

from gateway.core.domain import SETTLED, Basis, Priority, Provenance, Purpose, VerdictKind
from gateway.ledger.database.ownership import claimed, is_left
from gateway.ledger.database.schema import arrivals, deliveries, expected_instances, instances, jobs, retrievals

JobKind = Literal["pull", "send", "sync", "migrate", "compare"]
JobState = Literal["running", "stopped", "done"]


@dataclass(frozen=True, slots=True)
class Job:
    """A command in the ledger; `resumed` when an earlier run of it is carried on, `reopened` when that one had come to its end."""

    id: int
    resumed: bool
    reopened: bool = False


@dataclass(frozen=True, slots=True)
class Retrieval:
    """One study of a job as the ledger has it; `verdict` is None while it runs or where it was interrupted."""

    id: int
    job_id: int
    source: str
    study_instance_uid: str
    basis: Basis
    expected_count: int | None
    verdict: VerdictKind | None
    note: str
    started_at: float
    ended_at: float | None


def open_job(
    connection: Connection,
    kind: JobKind,
    fingerprint: str,
    criteria: str,
    *,
    destinations: Sequence[str] = (),
    priority: Priority = Priority.NORMAL,
    reopen: bool = False,
    now: float,
) -> Job:
    """Start a job, or carry on the newest of the same `fingerprint` where it was stopped or left a study undone, or to `reopen` it.

    Instances that come for it go to `destinations`, where there are any, else where the routes lead.
    """
    same = (jobs.c.kind == kind, jobs.c.fingerprint == fingerprint)
    newest = connection.execute(select(jobs.c.id, jobs.c.state).where(*same).order_by(jobs.c.id.desc()).limit(1)).one_or_none()
    if newest is not None and (reopen or newest.state != "done" or _undone(connection, int(newest.id))):
        set_job_state(connection, int(newest.id), "running", now=now)
        connection.execute(update(jobs).where(jobs.c.id == newest.id).values(priority=int(priority)))
        return Job(int(newest.id), resumed=True, reopened=reopen and newest.state == "done")
    values = {"kind": kind, "fingerprint": fingerprint, "criteria": criteria, "created_at": now, "changed_at": now}
    values |= {"destinations": json.dumps(list(destinations)) if destinations else None, "priority": int(priority)}
    values |= claimed(connection, now)
    return Job(_key(connection, insert(jobs).values(state="running", **values)), resumed=False)


def _undone(connection: Connection, job_id: int) -> bool:
    open_or_bad = or_(retrievals.c.verdict.is_(None), retrievals.c.verdict != str(VerdictKind.COMPLETE))
    return (
        connection.execute(select(retrievals.c.id).where(retrievals.c.job_id == job_id, open_or_bad).limit(1)).first() is not None
    )


def set_job_state(connection: Connection, job_id: int, state: JobState, *, now: float) -> None:
    """Record where a job stands: `done` when it came to its end, `stopped` when it did not."""
    mine = claimed(connection, now) if state == "running" else {}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(state=state, changed_at=now, **mine))


def stop_running_jobs(connection: Connection, *, now: float) -> int:
    """Mark jobs that an earlier process of this node left running as stopped, at start; return how many there were."""
    left = (jobs.c.state == "running", is_left(connection, jobs, now))
    return connection.execute(update(jobs).where(*left).values(state="stopped", changed_at=now)).rowcount


def open_retrieval(
    connection: Connection, job_id: int, source: str, study_instance_uid: str, *, fresh: bool = False, now: float
) -> Retrieval:
    """Start the retrieval of a study, or carry on the job's earlier one: its arrivals still count, its verdict is reset.

    A `fresh` one is started in any case: what came before does not count.
    """
    where = (retrievals.c.job_id == job_id, retrievals.c.study_instance_uid == study_instance_uid)
    row = connection.execute(select(retrievals).where(*where).order_by(retrievals.c.id.desc()).limit(1)).one_or_none()
    if row is not None and study_instance_uid and not fresh:
        reset = {"verdict": None, "note": None, "ended_at": None}
        connection.execute(update(retrievals).where(retrievals.c.id == row.id).values(**reset))
        return _retrieval({**row._mapping, **reset})
    values = {"job_id": job_id, "source": source, "study_instance_uid": study_instance_uid, "started_at": now}
    return Retrieval(
        id=_key(connection, insert(retrievals).values(**values)),
        job_id=job_id,
        source=source,
        study_instance_uid=study_instance_uid,
        basis=Basis.UIDS,
        expected_count=None,
        verdict=None,
        note="",
        started_at=now,
        ended_at=None,
    )


def expect(
    connection: Connection,
    retrieval_id: int,
    *,
    basis: Basis,
    expected_count: int | None,
    listed: Mapping[str, str],
    skipped: Collection[str] = (),
) -> None:
    """Record what the source lists, in place of what was recorded before.

    `listed` maps SOP Instance UID to Series Instance UID; the destinations hold those in `skipped` already.
    """
    connection.execute(
        update(retrievals).where(retrievals.c.id == retrieval_id).values(basis=str(basis), expected_count=expected_count)
    )
    connection.execute(delete(expected_instances).where(expected_instances.c.retrieval_id == retrieval_id))
    rows = [
        {"retrieval_id": retrieval_id, "sop_instance_uid": uid, "series_instance_uid": series, "skipped": uid in skipped}
        for uid, series in listed.items()
    ]
    if rows:
        connection.execute(insert(expected_instances), rows)


@dataclass(frozen=True, slots=True)
class Came:
    """An instance that came, as it is recorded: `length` in bytes, `unfit` why its bytes are not what they were declared to be.

    `current` says that no other content came under its SOP Instance UID later.
    """

    sop_instance_uid: str
    length: int
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    unfit: str
    current: bool


_CAME = (
    instances.c.sop_instance_uid,
    instances.c.content_length,
    instances.c.study_instance_uid,
    instances.c.series_instance_uid,
    instances.c.sop_class_uid,
    instances.c.transfer_syntax_uid,
    func.coalesce(instances.c.unfit, ""),
    instances.c.superseded_by.is_(None),
)
"""The columns of `Came`."""


def lengths(came: Iterable[Came]) -> dict[str, int]:
    """Return each SOP Instance UID of `came` with its data set's length in bytes."""
    return {one.sop_instance_uid: one.length for one in came}


def came(connection: Connection, retrieval_id: int) -> list[Came]:
    """Return what came for the retrieval: whether all of it is what was asked for is for `gateway.retrieve.verdict` to say.

    That is what its C-MOVEs brought, and what of its study it expects and came since it started, whomever it was counted to
    then: some sources keep different instances of two studies under one SOP Instance UID.
    An instance whose bytes are gone while they were still owed did not come.
    """
    return [Came(*row) for row in connection.execute(_RECEIVED, {"retrieval": retrieval_id})]


def received(connection: Connection, retrieval_id: int) -> dict[str, int]:
    """Return the SOP Instance UIDs of what `came` for the retrieval with their data sets' lengths in bytes."""
    return lengths(came(connection, retrieval_id))


def _received() -> CompoundSelect[Any]:
    retrieval_id: BindParameter[int] = bindparam("retrieval")
    mine = select(retrievals).where(retrievals.c.id == retrieval_id).subquery()
    started = select(mine.c.started_at).scalar_subquery()
    of_study = instances.c.study_instance_uid == select(mine.c.study_instance_uid).scalar_subquery()
    kept = instances.c.bytes_state != "missing"
    what = select(*_CAME)
    counted = what.join_from(arrivals, instances, arrivals.c.instance_id == instances.c.id).where(
        arrivals.c.retrieval_id == retrieval_id, or_(of_study, arrivals.c.move_originator_message_id.is_not(None)), kept
    )
    wanted = (
        what.join_from(expected_instances, instances, instances.c.sop_instance_uid == expected_instances.c.sop_instance_uid)
        .join(arrivals, arrivals.c.instance_id == instances.c.id)
        .where(expected_instances.c.retrieval_id == retrieval_id, arrivals.c.at >= started, of_study, kept)
    )
    return union(counted, wanted)


_RECEIVED = _received()


def came_for(connection: Connection, retrieval_id: int, destinations: Sequence[str]) -> list[Came]:
    """Return what came for a retrieval that wants everything at `destinations`.

    That is what it expects, or what was counted to it, and is on its way to each of them (or held there) with its bytes here, or
    was settled there since the retrieval started: what they had settled before, and lack now, has to come again.
    """
    values = {"retrieval": retrieval_id, "to": list(destinations), "all": len(destinations)}
    return [Came(*row) for row in connection.execute(_RECEIVED_FOR, values)]


def received_for(connection: Connection, retrieval_id: int, destinations: Sequence[str]) -> dict[str, int]:
    """Return the SOP Instance UIDs of what `came_for` the destinations with their data sets' lengths in bytes."""
    return lengths(came_for(connection, retrieval_id, destinations))


def _received_for() -> Select[Any]:
    mine: BindParameter[int] = bindparam("retrieval")
    started = select(retrievals.c.started_at).where(retrievals.c.id == mine).scalar_subquery()
    expected = select(expected_instances.c.sop_instance_uid).where(expected_instances.c.retrieval_id == mine)
    counted = select(arrivals.c.sop_instance_uid).where(arrivals.c.retrieval_id == mine)
    settled = deliveries.c.state.in_(sorted(SETTLED))
    stands = or_(and_(settled, deliveries.c.changed_at >= started), and_(~settled, instances.c.bytes_state == "kept"))
    return (
        select(*_CAME)
        .join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id)
        .where(
            instances.c.sop_instance_uid.in_(union(expected, counted)),
            instances.c.superseded_by.is_(None),
            instances.c.bytes_state != "missing",
            deliveries.c.destination.in_(bindparam("to", expanding=True)),
            stands,
        )
        .group_by(instances.c.id)
        .having(func.count() == bindparam("all"))
    )


# Built once: to build a statement takes longer than to carry it out.
_RECEIVED_FOR = _received_for()


def purpose_of(connection: Connection, provenance: Provenance, sop_instance_uid: str) -> Purpose | None:
    """Return what an instance came for that is found without a row: the newest retrieval without a verdict that expects it."""
    its_source = true() if provenance.source is None else retrievals.c.source == provenance.source
    statement = (
        select(retrievals.c.id, jobs.c.destinations, jobs.c.priority)
        .join_from(expected_instances, retrievals, retrievals.c.id == expected_instances.c.retrieval_id)
        .join(jobs, jobs.c.id == retrievals.c.job_id)
        .where(
            expected_instances.c.sop_instance_uid == sop_instance_uid,
            ~expected_instances.c.skipped,
            retrievals.c.verdict.is_(None),
            its_source,
        )
        .order_by(retrievals.c.id.desc())
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    destinations = tuple(json.loads(row.destinations)) if row.destinations else None
    return Purpose(row.id, destinations, Priority(row.priority))


def hasten(connection: Connection, retrieval_id: int, priority: Priority) -> None:
    """Have what waits of the instances that a retrieval expects go out no later than `priority` says."""
    expected = select(expected_instances.c.sop_instance_uid).where(expected_instances.c.retrieval_id == retrieval_id)
    mine = select(instances.c.id).where(instances.c.sop_instance_uid.in_(expected))
    slower = (deliveries.c.instance_id.in_(mine), deliveries.c.priority < int(priority), deliveries.c.state.not_in(sorted(SETTLED)))
    connection.execute(update(deliveries).where(*slower).values(priority=int(priority)))


def came_of_study(connection: Connection, retrieval_id: int, study_instance_uid: str) -> list[Came]:
    """Return what came for a retrieval that knows only counts: instances of its study.

    Counted are those that came for it, and those that came for nobody since it started and that no other source sent.
    """
    mine = select(retrievals).where(retrievals.c.id == retrieval_id).subquery()
    started, source = select(mine.c.started_at).scalar_subquery(), select(mine.c.source).scalar_subquery()
    its_own = or_(instances.c.source.is_(None), instances.c.source == source)
    unsolicited = and_(arrivals.c.retrieval_id.is_(None), arrivals.c.at >= started, its_own)
    rows = connection.execute(
        select(*_CAME)
        .join_from(instances, arrivals, arrivals.c.instance_id == instances.c.id)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.bytes_state != "missing",
            or_(arrivals.c.retrieval_id == retrieval_id, unsolicited),
        )
    )
    return [Came(*row) for row in rows]


def conflicts(connection: Connection, retrieval_id: int) -> int:
    """Count the instances that came for the retrieval with other content than was known under their SOP Instance UIDs."""
    return int(connection.execute(_CONFLICTS, {"retrieval": retrieval_id}).scalar_one())


_CONFLICTS = select(func.count(arrivals.c.sop_instance_uid.distinct())).where(
    arrivals.c.retrieval_id == bindparam("retrieval"), arrivals.c.outcome == "conflict"
)


def unproved(connection: Connection, job_id: int) -> set[int]:
    """Return the job's retrievals of whose instances some are gone while they were still owed."""
    missing = instances.c.bytes_state == "missing"
    counted = (
        select(retrievals.c.id)
        .join(arrivals, arrivals.c.retrieval_id == retrievals.c.id)
        .join(instances, instances.c.id == arrivals.c.instance_id)
    )
    wanted = (
        select(retrievals.c.id)
        .join(expected_instances, expected_instances.c.retrieval_id == retrievals.c.id)
        .join(instances, instances.c.sop_instance_uid == expected_instances.c.sop_instance_uid)
    )
    lost = union(*(one.where(retrievals.c.job_id == job_id, missing) for one in (counted, wanted)))
    return set(connection.execute(lost).scalars())


def settle(connection: Connection, retrieval_id: int, verdict: VerdictKind, note: str, *, now: float) -> None:
    """Record how a retrieval ended; `note` holds no patient data."""
    values = {"verdict": str(verdict), "note": note or None, "ended_at": now}
    connection.execute(update(retrievals).where(retrievals.c.id == retrieval_id).values(**values))


def retrievals_of(connection: Connection, job_id: int) -> list[Retrieval]:
    """Return the studies of a job in the order they were begun."""
    rows = connection.execute(select(retrievals).where(retrievals.c.job_id == job_id).order_by(retrievals.c.id))
    return [_retrieval(row._mapping) for row in rows]


def forget_unfound(connection: Connection, job_id: int) -> None:
    """Drop the job's rows of keys that found no study: a new run asks again."""
    where = (retrievals.c.job_id == job_id, retrievals.c.study_instance_uid == "")
    connection.execute(delete(retrievals).where(*where))


def expected(connection: Connection, retrieval_id: int) -> tuple[dict[str, str], set[str]]:
    """Return what was listed (SOP Instance UID to Series Instance UID), and which of it was skipped."""
    rows = connection.execute(
        select(expected_instances.c.sop_instance_uid, expected_instances.c.series_instance_uid, expected_instances.c.skipped).where(
            expected_instances.c.retrieval_id == retrieval_id
        )
    ).all()
    return {str(row[0]): str(row[1]) for row in rows}, {str(row[0]) for row in rows if row[2]}


def _key(connection: Connection, statement: Any) -> int:
    key: Any = connection.execute(statement).inserted_primary_key
    return int(key[0])


def _retrieval(row: Mapping[Any, Any]) -> Retrieval:
    return Retrieval(
        id=int(row["id"]),
        job_id=int(row["job_id"]),
        source=str(row["source"]),
        study_instance_uid=str(row["study_instance_uid"]),
        basis=Basis(row["basis"]),
        expected_count=row["expected_count"],
        verdict=VerdictKind(row["verdict"]) if row["verdict"] else None,
        note=str(row["note"] or ""),
        started_at=float(row["started_at"]),
        ended_at=row["ended_at"],
    )
