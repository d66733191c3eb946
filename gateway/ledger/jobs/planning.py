"""Queries about migrations: what was listed, which studies are still to be moved, and what became of each.

A migration is a job. Its studies are listed portion by portion (a day, or an entry of a list) and kept: a restart lists
nothing again and moves nothing that is complete. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, or_, select, true, update

from gateway.core.domain import SETTLED, DeliveryState, Proof, VerdictKind
from gateway.core.errors import UsageError
from gateway.ledger.database.schema import (
    arrivals,
    deliveries,
    expected_instances,
    instances,
    jobs,
    planned_portions,
    planned_studies,
    retrievals,
)
from gateway.ledger.deliveries.claiming import rivals

FINAL = frozenset({VerdictKind.COMPLETE, VerdictKind.EMPTY})
"""Verdicts after which a study is not moved again: the source has no more of it."""


@dataclass(frozen=True, slots=True)
class PlannedStudy:
    """A study that a migration is to move; `instance_count` is what the source counted in it."""

    study_instance_uid: str
    label: str
    instance_count: int | None


@dataclass(frozen=True, slots=True)
class Portion:
    """A portion of the listing: how many studies were found at a time, and why there may be more."""

    label: str
    found: int
    doubt: str | None


@dataclass(frozen=True, slots=True)
class MigrationJob:
    """A migration in the ledger."""

    id: int
    criteria: str
    state: str
    detached: bool
    created_at: float
    changed_at: float


@dataclass(frozen=True, slots=True)
class MigrationCounts:
    """The progress of a migration, in studies and instances of what was listed so far."""

    studies: int = 0
    instances: int = 0
    complete: int = 0
    incomplete: int = 0
    empty: int = 0
    failed: int = 0
    moved: int = 0
    """Instances of studies that have come to an end."""
    deleted: int = 0

    @property
    def ended(self) -> int:
        """The number of studies that have a verdict."""
        return self.complete + self.incomplete + self.empty + self.failed


@dataclass(frozen=True, slots=True)
class StudyReport:
    """The result for one planned study; the counts of deliveries are in `gateway.ledger.deliveries.progress`."""

    label: str
    study_instance_uid: str
    listed: int | None
    expected: int | None
    skipped: int
    received: int
    bytes: int
    verdict: VerdictKind | None
    note: str
    seconds: float | None
    deleted_at: float | None


def jobs_of_kind(connection: Connection, *, job_id: int | None = None) -> list[MigrationJob]:
    """Return the migrations that are known, the newest first, or the one with the id."""
    only = true() if job_id is None else jobs.c.id == job_id
    rows = connection.execute(select(jobs).where(jobs.c.kind == "migrate", only).order_by(jobs.c.id.desc()))
    return [MigrationJob(row.id, row.criteria, row.state, bool(row.detached), row.created_at, row.changed_at) for row in rows]


def migration(connection: Connection, *, job_id: int) -> MigrationJob:
    """Return the migration with the id.

    Raises:
        UsageError: there is none.
    """
    found = jobs_of_kind(connection, job_id=job_id)
    if not found:
        raise UsageError(f"there is no migration {job_id} (gateway jobs list)")
    return found[0]


def detach(connection: Connection, job_id: int, detached: bool) -> None:
    """Say whether a job goes on by itself."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(detached=detached))


def portions(connection: Connection, job_id: int) -> dict[str, Portion]:
    """Return what was listed, by label."""
    rows = connection.execute(select(planned_portions).where(planned_portions.c.job_id == job_id))
    return {row.label: Portion(row.label, row.found, row.doubt) for row in rows}


def plan(
    connection: Connection, job_id: int, label: str, studies: Sequence[tuple[str, int | None]], doubt: str | None, *, now: float
) -> list[PlannedStudy]:
    """Record what was listed under `label`: Study Instance UIDs with the source's counts, in the order to move them in.

    Returns those that no other portion had.
    """
    known = set(
        connection.execute(select(planned_studies.c.study_instance_uid).where(planned_studies.c.job_id == job_id)).scalars()
    )
    position = len(known)
    values: dict[str, Any] = {"job_id": job_id, "label": label}
    rows = [
        values | {"study_instance_uid": uid, "instance_count": count, "position": number}
        for number, (uid, count) in enumerate(((uid, count) for uid, count in studies if uid not in known), position)
    ]
    if rows:
        connection.execute(insert(planned_studies), rows)
    connection.execute(insert(planned_portions).values(**values, found=len(studies), doubt=doubt, listed_at=now))
    return [PlannedStudy(str(row["study_instance_uid"]), label, row["instance_count"]) for row in rows]


def forget_portions(connection: Connection, job_id: int) -> None:
    """Forget what was listed, so that it is listed again; the studies stay planned."""
    connection.execute(delete(planned_portions).where(planned_portions.c.job_id == job_id))


def undone(connection: Connection, job_id: int) -> list[PlannedStudy]:
    """Return the studies that have no final verdict, in order."""
    verdict = retrievals.c.verdict
    statement = (
        select(planned_studies.c.study_instance_uid, planned_studies.c.label, planned_studies.c.instance_count)
        .select_from(planned_studies.outerjoin(retrievals, _retrieval()))
        .where(planned_studies.c.job_id == job_id, or_(verdict.is_(None), verdict.not_in(sorted(FINAL))))
        .order_by(planned_studies.c.position)
    )
    return [PlannedStudy(*row) for row in connection.execute(statement)]


def counts(connection: Connection, job_id: int) -> MigrationCounts:
    """Return how far a migration is."""
    known = func.coalesce(retrievals.c.expected_count, planned_studies.c.instance_count, 0)
    statement = (
        select(retrievals.c.verdict, func.count(), func.sum(known), func.count(planned_studies.c.deleted_at))
        .select_from(planned_studies.outerjoin(retrievals, _retrieval()))
        .where(planned_studies.c.job_id == job_id)
        .group_by(retrievals.c.verdict)
    )
    rows = connection.execute(statement).all()
    of_verdict = {str(verdict): int(count) for verdict, count, _, _ in rows if verdict is not None}
    return MigrationCounts(
        studies=sum(count for _, count, _, _ in rows),
        instances=sum(int(number) for _, _, number, _ in rows),
        moved=sum(int(number) for verdict, _, number, _ in rows if verdict is not None),
        deleted=sum(int(deleted) for _, _, _, deleted in rows),
        **of_verdict,
    )


def report(connection: Connection, job_id: int) -> list[StudyReport]:
    """Return what became of each planned study, in order."""
    counts = {row.retrieval_id: row for row in connection.execute(_received(job_id))}
    columns = (
        planned_studies.c.label,
        planned_studies.c.study_instance_uid,
        planned_studies.c.instance_count,
        planned_studies.c.deleted_at,
        retrievals.c.id,
        retrievals.c.expected_count,
        retrievals.c.verdict,
        retrievals.c.note,
        retrievals.c.started_at,
        retrievals.c.ended_at,
    )
    statement = (
        select(*columns)
        .select_from(planned_studies.outerjoin(retrievals, _retrieval()))
        .where(planned_studies.c.job_id == job_id)
        .order_by(planned_studies.c.position)
    )
    return [_study_report(row, counts.get(row.id)) for row in connection.execute(statement)]


def outcomes(connection: Connection, job_id: int) -> dict[str, str]:
    """Return the lines of the report that were kept, by Study Instance UID."""
    kept = (planned_studies.c.job_id == job_id, planned_studies.c.outcome.is_not(None))
    rows = connection.execute(select(planned_studies.c.study_instance_uid, planned_studies.c.outcome).where(*kept))
    return {str(uid): str(outcome) for uid, outcome in rows}


def keep_outcomes(connection: Connection, job_id: int, outcomes: Mapping[str, str]) -> None:
    """Keep lines of the report, by Study Instance UID; one that is kept already stays as it is."""
    for uid, outcome in outcomes.items():
        mine = (planned_studies.c.job_id == job_id, planned_studies.c.study_instance_uid == uid)
        connection.execute(update(planned_studies).where(*mine, planned_studies.c.outcome.is_(None)).values(outcome=outcome))


def has_open_outcomes(connection: Connection, job_id: int) -> bool:
    """Tell whether the line of a study that was planned is not kept yet."""
    open_ones = (planned_studies.c.job_id == job_id, planned_studies.c.outcome.is_(None))
    return connection.execute(select(planned_studies.c.job_id).where(*open_ones).limit(1)).first() is not None


def to_delete(connection: Connection, job_id: int) -> list[tuple[str, int]]:
    """Return (Study Instance UID, id of the retrieval) of the complete studies that are not deleted from their source yet."""
    statement = (
        select(planned_studies.c.study_instance_uid, retrievals.c.id)
        .join_from(planned_studies, retrievals, _retrieval())
        .where(
            planned_studies.c.job_id == job_id,
            planned_studies.c.deleted_at.is_(None),
            retrievals.c.verdict == str(VerdictKind.COMPLETE),
        )
        .order_by(planned_studies.c.position)
    )
    return [(uid, int(key)) for uid, key in connection.execute(statement)]


def proved(connection: Connection, retrieval_id: int, destinations: Sequence[str]) -> tuple[set[str], bool]:
    """Return the SOP Instance UIDs of a retrieval that every destination was asked for and has, and whether more may become so.

    Without `destinations` every one that an instance was routed to counts.

    A destination's status alone proves nothing here, nor that it lists what it listed before; nor does an instance of another
    study, nor one under whose SOP Instance UID other content is known. Skipped instances are those that destinations listed when
    asked.
    """
    expected = select(expected_instances).where(expected_instances.c.retrieval_id == retrieval_id).subquery()
    study = select(retrievals.c.study_instance_uid).where(retrievals.c.id == retrieval_id).scalar_subquery()
    asked_for = deliveries.c.proof.in_([Proof.EXISTS, Proof.COMMITMENT, Proof.DIGEST])
    good = and_(deliveries.c.state == DeliveryState.VERIFIED, asked_for)
    waits = deliveries.c.state.not_in([*SETTLED, DeliveryState.HELD])
    statement = (
        select(instances.c.sop_instance_uid, func.count(), func.count().filter(good), func.count().filter(waits))
        .join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id)
        .where(instances.c.study_instance_uid == study, instances.c.sop_instance_uid.in_(select(expected.c.sop_instance_uid)))
        .where(instances.c.superseded_by.is_(None), ~rivals(instances))
        .where(deliveries.c.destination.in_(destinations) if destinations else true())
        .group_by(instances.c.id)
    )
    rows = connection.execute(statement).all()
    skipped = set(connection.execute(select(expected.c.sop_instance_uid).where(expected.c.skipped)).scalars())
    whole = {str(uid) for uid, count, verified, _ in rows if verified == count >= max(1, len(destinations))}
    return whole | skipped, any(waiting for _, _, _, waiting in rows)


def deleted(connection: Connection, job_id: int, study_instance_uid: str, *, now: float) -> None:
    """Record that a study was deleted from its source."""
    mine = (planned_studies.c.job_id == job_id, planned_studies.c.study_instance_uid == study_instance_uid)
    connection.execute(update(planned_studies).where(*mine).values(deleted_at=now))


def _retrieval() -> ColumnElement[bool]:
    """Return the condition that joins a planned study with its newest retrieval in the same job."""
    other = retrievals.alias("other")
    newest = (
        select(func.max(other.c.id))
        .where(other.c.job_id == planned_studies.c.job_id, other.c.study_instance_uid == planned_studies.c.study_instance_uid)
        .scalar_subquery()
    )
    return retrievals.c.id == newest


def _received(job_id: int) -> Select[Any]:
    """Select by retrieval what was expected and skipped, and what of it is here, in instances and bytes."""
    mine = select(retrievals.c.id).where(retrievals.c.job_id == job_id)
    came = (
        select(arrivals.c.retrieval_id, arrivals.c.sop_instance_uid, func.max(instances.c.content_length).label("length"))
        .join_from(arrivals, instances, instances.c.id == arrivals.c.instance_id)
        .where(arrivals.c.retrieval_id.in_(mine), instances.c.bytes_state != "missing")
        .group_by(arrivals.c.retrieval_id, arrivals.c.sop_instance_uid)
        .subquery()
    )
    joined = expected_instances.outerjoin(
        came,
        and_(
            came.c.retrieval_id == expected_instances.c.retrieval_id,
            came.c.sop_instance_uid == expected_instances.c.sop_instance_uid,
        ),
    )
    return (
        select(
            expected_instances.c.retrieval_id,
            func.count().filter(expected_instances.c.skipped).label("skipped"),
            func.count(came.c.sop_instance_uid).label("received"),
            func.coalesce(func.sum(came.c.length), 0).label("bytes"),
        )
        .select_from(joined)
        .where(expected_instances.c.retrieval_id.in_(mine))
        .group_by(expected_instances.c.retrieval_id)
    )


def _study_report(row: Any, counts: Any) -> StudyReport:
    ended = row.ended_at is not None
    return StudyReport(
        label=row.label,
        study_instance_uid=row.study_instance_uid,
        listed=row.instance_count,
        expected=row.expected_count,
        skipped=0 if counts is None else int(counts.skipped),
        received=0 if counts is None else int(counts.received),
        bytes=0 if counts is None else int(counts.bytes),
        verdict=None if row.verdict is None else VerdictKind(row.verdict),
        note=row.note or "",
        seconds=round(row.ended_at - row.started_at, 3) if ended else None,
        deleted_at=row.deleted_at,
    )
