"""Deliveries that wait for being transcoded: found, made due once that is done, or held where it cannot be done.

They are deferred meanwhile, far enough that no claim meets them. Every function takes a `Connection` first; those that change
something belong into `Ledger.write`. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, text, update

from gateway.core.domain import Consignment, Content
from gateway.core.domain import DeliveryState as S
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.database.transitions import move
from gateway.ledger.deliveries.claiming import CLAIMABLE, consignment_columns, consignment_of, mark_gone

_UNDONE = text("deliveries.sent_as IS NOT NULL AND deliveries.state IN ('pending', 'deferred', 'sending')")
"""As a literal: SQLite uses the partial index `deliveries_transcoded` only where it can prove the condition without parameters."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The copy that a delivery goes out of while it is not done: of this content, in one transfer syntax, in another."""

    destination: str
    content: Content
    stored: str
    sent_as: str


def waiting(connection: Connection, destination: str, *, limit: int) -> list[Consignment]:
    """Return deliveries to `destination` that wait to be transcoded into what their `sent_as` says, the oldest first."""
    rows = connection.execute(_WAITING, {"to": destination, "limit": limit})
    return [consignment_of(row, destination) for row in rows]


def copied(connection: Connection) -> list[Copied]:
    """Return what goes out of copies and is not done yet: there are never more of them than are made ahead."""
    return [
        Copied(row.destination, Content(row.location, row.content_offset, row.content_length, row.digest), row.stored, row.sent_as)
        for row in connection.execute(_COPIED)
    ]


def settled(connection: Connection, instance_ids: Collection[int]) -> set[int]:
    """Return those of the instances of which nothing is to be sent anywhere."""
    unsent, owed = deliveries.c.state.in_([S.PENDING, S.SENDING, S.DEFERRED]), set[int]()
    for chunk in chunks(list(instance_ids)):
        found = select(deliveries.c.instance_id).where(deliveries.c.instance_id.in_(chunk), unsent)
        owed.update(connection.execute(found).scalars())
    return set(instance_ids) - owed


def ready(
    connection: Connection,
    delivery_ids: Sequence[int],
    *,
    sent_as: str | None,
    now: float,
    reason: str | None,
    pause_s: float = 0.0,
) -> int:
    """Make due, after a pause, what waited: it goes out as `sent_as`, where that is chosen. Returns how many still waited."""
    columns: dict[str, Any] = {"due_at": now + pause_s, "sent_as": sent_as, "awaits_transcoding": False, "reason": reason}
    return move(connection, delivery_ids, S.PENDING, now=now, only_from=[S.DEFERRED], **columns)


def hold(connection: Connection, delivery_ids: Sequence[int], *, reason: str, now: float, bytes_gone: bool = False) -> int:
    """Hold what waited, for a person to decide; returns how many. `bytes_gone` says that the spooled bytes are not there."""
    columns: dict[str, Any] = {"reason": reason, "sent_as": None, "awaits_transcoding": False}
    held = move(connection, delivery_ids, S.HELD, now=now, only_from=[S.DEFERRED], **columns)
    if bytes_gone:
        mark_gone(connection, delivery_ids, now)
    return held


def start_over(connection: Connection, *, now: float) -> int:
    """Forget, at start, what was chosen for deliveries that wait: nothing is transcoded yet, and the configuration may be another.

    Returns how many waited to be transcoded.
    """
    connection.execute(update(deliveries).where(_UNDONE, ~deliveries.c.awaits_transcoding, CLAIMABLE).values(sent_as=None))
    waited = select(deliveries.c.id).where(deliveries.c.awaits_transcoding, deliveries.c.state == S.DEFERRED)
    return ready(connection, list(connection.execute(waited).scalars()), sent_as=None, now=now, reason=None)


def _waits() -> ColumnElement[bool]:
    return deliveries.c.awaits_transcoding & (deliveries.c.state == S.DEFERRED)


_WAITING = (
    select(*consignment_columns())
    .join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
    .where(deliveries.c.destination == bindparam("to"), _waits())
    .order_by(deliveries.c.id)
    .limit(bindparam("limit"))
)
_COPIED = (
    select(
        deliveries.c.destination,
        deliveries.c.sent_as,
        instances.c.transfer_syntax_uid.label("stored"),
        instances.c.location,
        instances.c.content_offset,
        instances.c.content_length,
        instances.c.digest,
    )
    .join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
    .where(_UNDONE, ~deliveries.c.awaits_transcoding)
)
