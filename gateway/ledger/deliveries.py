"""Deliveries on their way: claiming, outcomes, recovery. What people see of them is in `overview`, what they do in `queue`.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since
the epoch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, exists, or_, select, text, update

from gateway.domain import Consignment, Content, DeliveryState, InstanceIdentity, Proof
from gateway.ledger.instances import SUPERSEDED
from gateway.ledger.keeping import mark_missing
from gateway.ledger.schema import deliveries, instances
from gateway.ledger.transitions import move

RIVAL_PAUSE_S = 1.0
"""How long newer content waits while older content of the same SOP Instance UID is still on its way."""

CLAIMABLE = text("deliveries.state IN ('pending', 'deferred')")
"""As a literal: SQLite uses the partial index `deliveries_due` only where it can prove the condition without parameters."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of one delivery that is being sent. `attempts` is the new number; None leaves `due_at` as it is.

    `proof`, with the state delivered, makes it verified at once. `bytes_gone` says that the spooled bytes are missing or damaged.
    """

    delivery_id: int
    state: DeliveryState
    attempts: int
    due_at: float | None = None
    status: int | None = None
    reason: str | None = None
    uncertain: bool = False
    proof: Proof | None = None
    bytes_gone: bool = False


def next_due(connection: Connection, destination: str) -> float | None:
    """Return when the next delivery to `destination` may be claimed, or None where none waits."""
    statement = select(deliveries.c.due_at).where(deliveries.c.destination == destination, CLAIMABLE)
    return connection.execute(statement.order_by(deliveries.c.due_at, deliveries.c.id).limit(1)).scalar_one_or_none()


def claim(
    connection: Connection,
    destination: str,
    *,
    now: float,
    max_instances: int,
    max_bytes: int,
    shares: int = 1,
) -> list[Consignment]:
    """Mark due deliveries to `destination` as `sending` and return them, those due longest first.

    At most `max_instances` and about `max_bytes`, but at least one where one is due. With `shares` workers at the destination
    only a fair part of what is due is taken. Superseded content is held; newer content waits for older content of the same
    SOP Instance UID that is still being sent, so that the newer one arrives last.
    """
    due = _due_ids(connection, destination, now, max_instances * shares)
    rows = _rows(connection, due[: max(1, min(max_instances, -(-len(due) // shares)))])
    superseded = [row.id for row in rows if row.superseded_by is not None]
    move(connection, superseded, DeliveryState.HELD, now=now, reason=SUPERSEDED)
    current = [row for row in rows if row.superseded_by is None]
    held_back = _rivals_under_way(connection, destination, current)
    if held_back:
        _postpone(connection, held_back, now + RIVAL_PAUSE_S)
    chosen = _within([row for row in current if row.id not in held_back], max_bytes)
    move(connection, [row.id for row in chosen], DeliveryState.SENDING, now=now)
    rivals = _with_rivals(connection, chosen)
    return [replace(_consignment(row, destination), has_rivals=row.instance_id in rivals) for row in chosen]


def apply(connection: Connection, changes: Sequence[Change], *, now: float) -> int:
    """Record outcomes of deliveries that are being sent; returns how many were (another may have been recovered meanwhile).

    Changes that are alike become one statement, so that a batch of successes costs one.
    """
    alike: dict[Change, list[int]] = defaultdict(list)
    for change in changes:
        alike[replace(change, delivery_id=0)].append(change.delivery_id)
    return sum(_apply(connection, change, ids, now) for change, ids in alike.items())


def recover_sending(connection: Connection, *, now: float, destination: str | None = None) -> int:
    """Return to `pending`, as uncertain, what was being sent when nobody is sending any more; returns how many."""
    statement = select(deliveries.c.id).where(deliveries.c.state == DeliveryState.SENDING)
    if destination is not None:
        statement = statement.where(deliveries.c.destination == destination)
    ids = list(connection.execute(statement).scalars())
    return move(connection, ids, DeliveryState.PENDING, now=now, only_from=[DeliveryState.SENDING], uncertain=True)


def _apply(connection: Connection, change: Change, ids: Sequence[int], now: float) -> int:
    columns: dict[str, Any] = {"attempts": change.attempts, "reason": change.reason, "uncertain": change.uncertain, "proof": None}
    if change.due_at is not None:
        columns["due_at"] = change.due_at
    if change.status is not None:
        columns["status"] = change.status
    changed = move(connection, ids, change.state, now=now, only_from=[DeliveryState.SENDING], **columns)
    if change.state is DeliveryState.DELIVERED and change.proof is not None:
        verify(connection, ids, change.proof, now=now)
    if change.bytes_gone:
        _mark_gone(connection, ids, now)
    return changed


def _mark_gone(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Record whose bytes are gone, so that they are taken when they arrive again. A file in place may come back by itself."""
    spooled = (deliveries.c.id.in_(ids), instances.c.location.startswith("spool:"))
    found = select(instances.c.id).join(deliveries, deliveries.c.instance_id == instances.c.id).where(*spooled)
    mark_missing(connection, list(connection.execute(found).scalars()), now=now)


def verify(connection: Connection, delivery_ids: Sequence[int], proof: Proof, *, now: float, **columns: Any) -> int:
    """Record the proof of delivered instances, which settles them. `columns` may carry a `reason`."""
    only_from = [DeliveryState.DELIVERED]
    return move(connection, delivery_ids, DeliveryState.VERIFIED, now=now, only_from=only_from, proof=proof, **columns)


def _due_ids(connection: Connection, destination: str, now: float, limit: int) -> list[int]:
    statement = (
        select(deliveries.c.id)
        .where(deliveries.c.destination == destination, CLAIMABLE, deliveries.c.due_at <= now)
        .order_by(deliveries.c.due_at, deliveries.c.id)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def _rows(connection: Connection, ids: Sequence[int]) -> Sequence[Row[Any]]:
    of, what = deliveries.c, instances.c
    statement: Select[Any] = (
        select(
            of.id,
            of.instance_id,
            of.attempts,
            of.status,
            of.uncertain,
            what.sop_class_uid,
            what.sop_instance_uid,
            what.transfer_syntax_uid,
            what.study_instance_uid,
            what.series_instance_uid,
            what.location,
            what.content_offset,
            what.content_length,
            what.digest,
            what.superseded_by,
        )
        .join_from(deliveries, instances, what.id == of.instance_id)
        .where(of.id.in_(ids))
        .order_by(of.due_at, of.id)
    )
    return connection.execute(statement).all()


def _within(rows: Sequence[Row[Any]], max_bytes: int) -> list[Row[Any]]:
    chosen: list[Row[Any]] = []
    total = 0
    for row in rows:
        total += row.content_length
        if chosen and total > max_bytes:
            break
        chosen.append(row)
    return chosen


def _rivals_under_way(connection: Connection, destination: str, rows: Sequence[Row[Any]]) -> set[int]:
    """Return the ids of deliveries whose SOP Instance UID is being sent to `destination` right now."""
    under_way = set(
        connection.execute(
            select(instances.c.sop_instance_uid)
            .join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
            .where(deliveries.c.destination == destination, deliveries.c.state == DeliveryState.SENDING)
        ).scalars()
    )
    return {row.id for row in rows if row.sop_instance_uid in under_way}


def _postpone(connection: Connection, ids: Collection[int], due_at: float) -> None:
    connection.execute(update(deliveries).where(deliveries.c.id.in_(ids), CLAIMABLE).values(due_at=due_at))


def rivals(one: FromClause) -> ColumnElement[bool]:
    """Return the condition that other content is known under the SOP Instance UID of `one`, a selection of instances."""
    other = instances.alias("other")
    differs = or_(other.c.digest != one.c.digest, other.c.content_length != one.c.content_length)
    return exists().where(other.c.sop_instance_uid == one.c.sop_instance_uid, other.c.id != one.c.id, differs)


def _with_rivals(connection: Connection, rows: Sequence[Row[Any]]) -> set[int]:
    """Return the ids of the instances of `rows` under whose SOP Instance UID the ledger knows other content."""
    mine = instances.c.id.in_([row.instance_id for row in rows])
    return set(connection.execute(select(instances.c.id).where(mine, rivals(instances))).scalars())


def _consignment(row: Row[Any], destination: str) -> Consignment:
    return Consignment(
        delivery_id=row.id,
        instance_id=row.instance_id,
        destination=destination,
        identity=InstanceIdentity(
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
        ),
        content=Content(row.location, row.content_offset, row.content_length, row.digest),
        attempts=row.attempts,
        last_status=row.status,
        uncertain=bool(row.uncertain),
    )
