"""The numbers that `gateway status` shows, counted in the ledger. Reading only; every number comes from one snapshot.

Times are UTC seconds since the epoch, ages seconds, sizes bytes. No patient data: UIDs, names and counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Subquery, func, select, text

from gateway.core.domain import DeliveryState as S
from gateway.core.domain import Proof
from gateway.ledger.database.schema import arrivals, deliveries, instances, jobs, retrievals
from gateway.ledger.received.conflicts import differ

UNSETTLED = (S.PENDING, S.SENDING, S.DEFERRED, S.DELIVERED, S.HELD)
"""States in which something is still owed, or a person has to decide."""

_OF_BEFORE = text(f"deliveries.proof = '{Proof.BEFORE}'")
"""As a literal: SQLite uses the partial index `deliveries_of_before` only where it can prove the condition without parameters."""


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """The number of deliveries of one destination in one state, and the time for which the oldest has been waiting."""

    destination: str
    state: S
    count: int
    size_bytes: int
    oldest_at: float


@dataclass(frozen=True, slots=True)
class LastVerdict:
    """The verdict on one retrieval; `verdict` is None while it still runs."""

    source: str
    study_instance_uid: str
    verdict: str | None
    expected: int | None
    note: str | None
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """An instance of which several contents came: the oldest and the newest of them by their ids. The newest is delivered."""

    sop_instance_uid: str
    study_instance_uid: str
    older_id: int
    newer_id: int
    newer_at: float


@dataclass(frozen=True, slots=True)
class Holdings:
    """The number of instances in the ledger, by what became of their bytes, and of those that no route took."""

    kept: int
    released: int
    missing: int
    unrouted: int
    conflicts: int
    last_arrival_at: float | None


def queue_depths(connection: Connection) -> list[QueueDepth]:
    """Count the unsettled deliveries of each destination by state."""
    statement = (
        select(
            deliveries.c.destination,
            deliveries.c.state,
            func.count(),
            func.sum(instances.c.content_length),
            func.min(instances.c.received_at),
        )
        .join(instances, instances.c.id == deliveries.c.instance_id)
        .where(deliveries.c.state.in_(UNSETTLED))
        .group_by(deliveries.c.destination, deliveries.c.state)
        .order_by(deliveries.c.destination, deliveries.c.state)
    )
    rows = connection.execute(statement)
    return [QueueDepth(name, S(state), count, int(size), oldest) for name, state, count, size, oldest in rows]


def settled_counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Count what each destination has had: destination to state to number, for the states that need nothing more."""
    by_state = (deliveries.c.destination, deliveries.c.state)
    counts: dict[str, dict[str, int]] = {}
    # Leaving states out here costs less than having the database compare each row.
    for destination, state, count in connection.execute(select(*by_state, func.count()).group_by(*by_state)):
        if state not in UNSETTLED:
            counts.setdefault(destination, {})[state] = count
    return counts


def were_there(connection: Connection) -> dict[str, int]:
    """Count, by destination, what is proved by no more than that the destination lists it, as it did before it was sent."""
    counted = select(deliveries.c.destination, func.count()).where(_OF_BEFORE).group_by(deliveries.c.destination)
    return {row.destination: int(row[1]) for row in connection.execute(counted)}


def study_at(connection: Connection, destination: str, study_instance_uid: str) -> dict[str, int]:
    """Count the deliveries of a study at a destination by state; superseded content that is held does not count."""
    statement = (
        select(deliveries.c.state, func.count())
        .join(instances, instances.c.id == deliveries.c.instance_id)
        .where(instances.c.study_instance_uid == study_instance_uid, ~deliveries.c.superseded)
        .where(deliveries.c.destination == destination)
        .group_by(deliveries.c.state)
    )
    return {str(state): int(count) for state, count in connection.execute(statement)}


def last_verdicts(connection: Connection, limit: int = 10) -> list[LastVerdict]:
    """Return the newest `limit` retrievals, newest first."""
    table = retrievals.c
    statement = (
        select(
            table.source,
            table.study_instance_uid,
            table.verdict,
            table.expected_count,
            table.note,
            table.started_at,
            table.ended_at,
        )
        .order_by(table.id.desc())
        .limit(limit)
    )
    return [LastVerdict(*row) for row in connection.execute(statement)]


def conflicts(connection: Connection, limit: int = 20) -> list[Conflict]:
    """Return the newest `limit` conflicts, an instance once however many contents of it came."""
    older, newer = instances.alias("older"), instances.alias("newer")
    newest = func.max(newer.c.id)
    statement = (
        select(
            older.c.sop_instance_uid,
            func.max(older.c.study_instance_uid),
            func.min(older.c.id),
            newest,
            func.max(newer.c.received_at),
        )
        .join(newer, newer.c.id == older.c.superseded_by)
        .where(older.c.superseded_by.is_not(None), differ(older, newer))
        .group_by(older.c.sop_instance_uid)
        .order_by(newest.desc())
        .limit(limit)
    )
    return [Conflict(*row) for row in connection.execute(statement)]


def holdings(connection: Connection) -> Holdings:
    """Count the instances that the ledger knows, each number from an index of what it counts."""

    def count(condition: ColumnElement[bool]) -> int:
        return connection.execute(select(func.count()).select_from(instances).where(condition)).scalar_one()

    newest = select(arrivals.c.at).order_by(arrivals.c.id.desc()).limit(1)
    return Holdings(
        kept=count(instances.c.bytes_state == "kept"),
        released=count(instances.c.bytes_state == "released"),
        missing=count(instances.c.bytes_state == "missing"),
        unrouted=count(~instances.c.routed),
        conflicts=connection.execute(select(func.count()).select_from(_conflicting())).scalar_one(),
        last_arrival_at=connection.execute(newest).scalar_one_or_none(),
    )


def _conflicting() -> Subquery:
    older, newer = instances.alias("older"), instances.alias("newer")
    pairs = select(older.c.sop_instance_uid).distinct().join(newer, newer.c.id == older.c.superseded_by)
    return pairs.where(older.c.superseded_by.is_not(None), differ(older, newer)).subquery()


def held_reasons(connection: Connection, limit: int = 20) -> list[tuple[str, str, int]]:
    """Return why deliveries are held: destination, reason and how many, the most frequent first."""
    reason = func.coalesce(deliveries.c.reason, "")
    statement = (
        select(deliveries.c.destination, reason, func.count())
        .where(deliveries.c.state == S.HELD)
        .group_by(deliveries.c.destination, reason)
        .order_by(func.count().desc(), deliveries.c.destination)
        .limit(limit)
    )
    return [(destination, text, count) for destination, text, count in connection.execute(statement)]


def stopped_jobs(connection: Connection) -> int:
    """Count the commands that were interrupted and carry on when given again. A sync's next look finds what it left undone."""
    stopped = (jobs.c.state == "stopped", jobs.c.kind != "sync")
    return connection.execute(select(func.count()).select_from(jobs).where(*stopped)).scalar_one()


def verified_of_study(connection: Connection, destination: str, study_instance_uid: str) -> list[tuple[str, str]]:
    """Return what of a study is verified at a destination: Series Instance UID and SOP Instance UID of each instance."""
    statement = (
        select(instances.c.series_instance_uid, instances.c.sop_instance_uid)
        .join(deliveries, deliveries.c.instance_id == instances.c.id)
        .where(instances.c.study_instance_uid == study_instance_uid)
        .where(deliveries.c.destination == destination, deliveries.c.state == S.VERIFIED)
    )
    return [(series, instance) for series, instance in connection.execute(statement)]
