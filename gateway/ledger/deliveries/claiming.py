"""Deliveries on their way: claiming, outcomes, recovery. The views for people are in `overview`, their actions in `queue`.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since
the epoch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
    update,
)

from gateway.core.domain import Consignment, Content, DeliveryState, InstanceIdentity, Mode, Priority, Proof
from gateway.ledger.database.ownership import claimed, is_left, is_own, owner_of
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.database.transitions import move
from gateway.ledger.received.conflicts import differ
from gateway.ledger.received.instances import SUPERSEDED
from gateway.ledger.received.keeping import mark_missing

RIVAL_PAUSE_S = 1.0
"""The time that newer content waits while older content of the same SOP Instance UID is still on its way."""

CLAIMABLE = text("deliveries.state IN ('pending', 'deferred')")
"""As a literal: SQLite uses the partial index `deliveries_due` only where it can prove the condition without parameters."""

PRIORITIES = tuple(int(priority) for priority in Priority)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one delivery that is being sent. `attempts` is the new number; None leaves `due_at` as it is.

    `proof`, with the state delivered, makes it verified at once. `bytes_gone` says that the spooled bytes are missing or damaged.
    `sent_as` is the transfer syntax UID that it goes or went out in, where that was chosen for it; with `awaits_transcoding` it is
    not looked at again before it was brought into that one. `was_there` says what the destination listed before it was sent first.
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
    sent_as: str | None = None
    awaits_transcoding: bool = False
    was_there: bool | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim, and when the next delivery falls due: no later than now where more is due, None where none waits."""

    consignments: Sequence[Consignment]
    next_due: float | None


def claim(
    connection: Connection,
    destination: str,
    *,
    now: float,
    max_instances: int,
    max_bytes: int,
    shares: int = 1,
) -> Claim:
    """Mark due deliveries to `destination` as `sending` and return them: of the highest priority first, then those due longest.

    At most `max_instances` and about `max_bytes`, but at least one where one is due. With `shares` workers at the destination
    only a fair part of what is due is taken. Superseded content is held; newer content waits for older content of the same
    SOP Instance UID that is still being sent, so that the newer one arrives last. Its cost depends on how many it looks at,
    not on how many wait.
    """
    waiting = connection.execute(_WAITING, {"to": destination, "limit": max_instances * shares + 1}).all()
    ready = [row for row in waiting if row.due_at <= now]
    later = [row.due_at for row in waiting if row.due_at > now]
    if not ready:
        return Claim([], min(later, default=None))
    share = max(1, min(max_instances, -(-len(ready) // shares)))
    rows = connection.execute(_ROWS, {"ids": [row.id for row in ready[:share]], "to": destination}).all()
    superseded = [row.id for row in rows if row.superseded]
    move(connection, superseded, DeliveryState.HELD, now=now, reason=SUPERSEDED)
    current = [row for row in rows if not row.superseded]
    held_back = [row.id for row in current if row.under_way]
    if held_back:
        _postpone(connection, held_back, now + RIVAL_PAUSE_S)
    chosen = _within([row for row in current if not row.under_way], max_bytes)
    move(connection, [row.id for row in chosen], DeliveryState.SENDING, now=now, **claimed(connection, now))
    left = later + [row.due_at for row in ready[len(rows) :]]
    left += [now] * (len(current) - len(held_back) > len(chosen)) + [now + RIVAL_PAUSE_S] * bool(held_back)
    return Claim([consignment_of(row, destination) for row in chosen], min(left, default=None))


def apply(connection: Connection, changes: Sequence[Change], *, now: float) -> int:
    """Record outcomes of deliveries that this node is sending; returns how many were (another may have been recovered meanwhile).

    Changes that are alike become one statement, so that a batch of successes costs one.
    """
    alike: dict[tuple[Any, ...], list[Change]] = defaultdict(list)
    for change in changes:
        alike[_WHAT(change)].append(change)
    return sum(_apply(connection, group[0], [change.delivery_id for change in group], now) for group in alike.values())


def known_destinations(connection: Connection) -> list[str]:
    """Return the names of all destinations that have deliveries: a step in the index `deliveries_by_state` for each."""
    names: list[str] = []
    while (name := connection.execute(_NEXT_DESTINATION, {"last": names[-1] if names else ""}).scalar_one()) is not None:
        names.append(name)
    return names


def recover_sending(connection: Connection, *, now: float, destination: str | None = None) -> int:
    """Return to `pending`, as uncertain, what was being sent when this node is sending nothing any more; returns how many.

    Deliveries that another node is sending are left alone until their lease has run out.
    """
    names = known_destinations(connection) if destination is None else [destination]
    sending = (deliveries.c.destination.in_(names), deliveries.c.state == DeliveryState.SENDING)
    return _back(connection, select(deliveries.c.id).where(*sending, is_left(connection, deliveries, now)), now)


def take_over(connection: Connection, destination: str, *, now: float) -> int:
    """Return to `pending`, as uncertain, what another node was sending to `destination` and lost; returns how many."""
    sending = (deliveries.c.destination == destination, deliveries.c.state == DeliveryState.SENDING)
    lost = (~is_own(connection, deliveries), deliveries.c.lease_until < now)
    return _back(connection, select(deliveries.c.id).where(*sending, *lost), now)


def _back(connection: Connection, statement: Select[Any], now: float) -> int:
    ids = list(connection.execute(statement).scalars())
    return move(connection, ids, DeliveryState.PENDING, now=now, only_from=[DeliveryState.SENDING], uncertain=True)


def _apply(connection: Connection, change: Change, ids: Sequence[int], now: float) -> int:
    proved = change.state is DeliveryState.DELIVERED and change.proof is not None
    columns: dict[str, Any] = {
        "attempts": change.attempts,
        "reason": change.reason,
        "uncertain": change.uncertain,
        "proof": change.proof if proved else None,
        "sent_as": change.sent_as,
        "awaits_transcoding": change.awaits_transcoding,
    }
    if change.was_there is not None:
        columns["was_there"] = change.was_there
    if change.due_at is not None:
        columns["due_at"] = change.due_at
    if change.status is not None:
        columns["status"] = change.status
    state = DeliveryState.VERIFIED if proved else change.state
    changed = move(connection, ids, state, now=now, only_from=_SENDING, owner=owner_of(connection), **columns)
    if change.bytes_gone:
        mark_gone(connection, ids, now)
    return changed


def mark_gone(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Record whose bytes are gone, so that they are taken when they arrive again. A file in place may come back by itself."""
    spooled = (deliveries.c.id.in_(ids), ~instances.c.location.startswith("file:"))
    found = select(instances.c.id).join(deliveries, deliveries.c.instance_id == instances.c.id).where(*spooled)
    mark_missing(connection, list(connection.execute(found).scalars()), now=now)


def verify(connection: Connection, delivery_ids: Sequence[int], proof: Proof, *, now: float, **columns: Any) -> int:
    """Record the proof of delivered instances, which settles them. `columns` may carry a `reason`."""
    only_from = [DeliveryState.DELIVERED]
    return move(connection, delivery_ids, DeliveryState.VERIFIED, now=now, only_from=only_from, proof=proof, **columns)


def _within(rows: Sequence[Row[Any]], max_bytes: int) -> list[Row[Any]]:
    chosen: list[Row[Any]] = []
    total = 0
    for row in rows:
        total += row.content_length
        if chosen and total > max_bytes:
            break
        chosen.append(row)
    return chosen


def _postpone(connection: Connection, ids: Collection[int], due_at: float) -> None:
    connection.execute(update(deliveries).where(deliveries.c.id.in_(ids), CLAIMABLE).values(due_at=due_at))


def rivals(one: FromClause) -> ColumnElement[bool]:
    """Return the condition that other content is known under the SOP Instance UID of `one`, a selection of instances.

    The same elements and pixels in another encoding are the same content.
    """
    other = instances.alias("other")
    differs = or_(other.c.digest != one.c.digest, other.c.content_length != one.c.content_length)
    differs &= differ(one, other)
    return exists().where(other.c.sop_instance_uid == one.c.sop_instance_uid, other.c.id != one.c.id, differs)


def consignment_of(row: Row[Any], destination: str) -> Consignment:
    """Return the delivery that a row of `consignment_columns` is."""
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
        has_rivals=bool(row.has_rivals),
        mode=None if row.mode is None else Mode(row.mode),
        sent_as=row.sent_as,
        was_there=row.was_there,
    )


def _under_way(one: FromClause) -> ColumnElement[bool]:
    """Return the condition that other content with the SOP Instance UID of `one` is being sent to the destination `to`."""
    rival, sent = instances.alias("rival"), deliveries.alias("sent")
    # One within the other, so that it begins with the UID and not with all that is being sent.
    being_sent = exists().where(
        sent.c.instance_id == rival.c.id, sent.c.destination == bindparam("to"), sent.c.state == literal_column("'sending'")
    )
    return exists().where(rival.c.sop_instance_uid == one.c.sop_instance_uid, rival.c.id != one.c.id, being_sent)


def consignment_columns() -> tuple[ColumnElement[Any], ...]:
    """Return the columns of `deliveries` and `instances` that make a consignment."""
    of, what = deliveries.c, instances.c
    return (
        of.id,
        of.instance_id,
        of.attempts,
        of.status,
        of.uncertain,
        of.mode,
        of.sent_as,
        of.was_there,
        what.sop_class_uid,
        what.sop_instance_uid,
        what.transfer_syntax_uid,
        what.study_instance_uid,
        what.series_instance_uid,
        what.location,
        what.content_offset,
        what.content_length,
        what.digest,
        rivals(instances).label("has_rivals"),
    )


def _rows_of() -> Select[Any]:
    of, what = deliveries.c, instances.c
    return (
        select(*consignment_columns(), of.superseded, _under_way(instances).label("under_way"))
        .join_from(deliveries, instances, what.id == of.instance_id)
        .where(of.id.in_(bindparam("ids", expanding=True)))
        .order_by(of.priority.desc(), of.due_at, of.id)
    )


def _waiting_at(priority: int) -> Select[Any]:
    """Select the first of what waits at one priority: each is a range of the index `deliveries_due`."""
    first = (
        select(deliveries.c.id, deliveries.c.due_at, deliveries.c.priority)
        .where(deliveries.c.destination == bindparam("to"), deliveries.c.priority == literal_column(str(priority)), CLAIMABLE)
        .order_by(deliveries.c.due_at, deliveries.c.id)
        .limit(bindparam("limit"))
    )
    return select(first.subquery())


# Built once: to build a statement takes longer than to carry it out.
_WAITING = union_all(*(_waiting_at(priority) for priority in sorted(PRIORITIES, reverse=True)))
_ROWS = _rows_of()
_WHAT = attrgetter(*(field.name for field in fields(Change) if field.name != "delivery_id"))
_NEXT_DESTINATION = select(func.min(deliveries.c.destination)).where(deliveries.c.destination > bindparam("last"))
_SENDING = frozenset({DeliveryState.SENDING})
