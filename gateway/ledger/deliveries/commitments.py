"""Storage Commitment transactions (PS3.4 §J): registered before they are requested, so that a report always finds its own.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since
the epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from gateway.core.domain import DeliveryState
from gateway.ledger.database.schema import commitment_items, commitments, deliveries
from gateway.ledger.deliveries.proofs import Unverified, unverified_columns


@dataclass(frozen=True, slots=True)
class Transaction:
    """A request for commitment. `answered` once a report came, or nobody waits for one any more."""

    transaction_uid: str
    destination: str
    deadline_at: float
    answered: bool


def register(
    connection: Connection,
    transaction_uid: str,
    destination: str,
    delivery_ids: Sequence[int],
    *,
    now: float,
    deadline_at: float,
) -> None:
    """Record the request for commitment of `delivery_ids`, to be made after this is durable."""
    values = {"transaction_uid": transaction_uid, "destination": destination, "requested_at": now, "deadline_at": deadline_at}
    connection.execute(insert(commitments).values(values))
    items = [{"transaction_uid": transaction_uid, "delivery_id": number} for number in delivery_ids]
    if items:
        connection.execute(insert(commitment_items), items)


def get(connection: Connection, transaction_uid: str) -> Transaction | None:
    """Return the transaction, or None where we never made it."""
    statement = select(
        commitments.c.transaction_uid,
        commitments.c.destination,
        commitments.c.deadline_at,
        commitments.c.answered_at.is_not(None),
    ).where(commitments.c.transaction_uid == transaction_uid)
    row = connection.execute(statement).first()
    return None if row is None else Transaction(row[0], row[1], row[2], bool(row[3]))


def items(connection: Connection, transaction_uid: str) -> list[Unverified]:
    """Return the deliveries of the transaction that still wait for proof."""
    statement = (
        unverified_columns()
        .join(commitment_items, commitment_items.c.delivery_id == deliveries.c.id)
        .where(commitment_items.c.transaction_uid == transaction_uid, deliveries.c.state == DeliveryState.DELIVERED)
        .order_by(deliveries.c.id)
    )
    return [Unverified(*row) for row in connection.execute(statement)]


def settle(connection: Connection, transaction_uid: str, delivery_ids: Collection[int], *, now: float) -> bool:
    """Take deliveries that a report named off the transaction, and end it; False where some were not named.

    Those are left to be proved in another way: the transaction's deadline has then come.
    """
    named = commitment_items.c.delivery_id.in_(delivery_ids)
    connection.execute(delete(commitment_items).where(commitment_items.c.transaction_uid == transaction_uid, named))
    complete = not items(connection, transaction_uid)
    values = {"answered_at": now} if complete else {"deadline_at": now}
    connection.execute(update(commitments).where(commitments.c.transaction_uid == transaction_uid).values(values))
    return complete


def end(connection: Connection, transaction_uid: str, *, now: float) -> None:
    """Wait for no report any more."""
    mine = commitments.c.transaction_uid == transaction_uid
    connection.execute(update(commitments).where(mine, commitments.c.answered_at.is_(None)).values(answered_at=now))


def expired(connection: Connection, destination: str, *, now: float) -> list[str]:
    """Return the transactions with `destination` whose deadline passed without a report.

    One that was requested after `now` counts too: the clock was set back, and its deadline would be too far away.
    """
    over = or_(commitments.c.deadline_at <= now, commitments.c.requested_at > now)
    waiting = (commitments.c.destination == destination, commitments.c.answered_at.is_(None))
    statement = select(commitments.c.transaction_uid).where(*waiting, over)
    return list(connection.execute(statement.order_by(commitments.c.deadline_at)).scalars())


def next_deadline(connection: Connection, destination: str) -> float | None:
    """Return when the next report from `destination` is overdue, or None where none is awaited."""
    waiting = (commitments.c.destination == destination, commitments.c.answered_at.is_(None))
    deadline_at: float | None = connection.execute(select(func.min(commitments.c.deadline_at)).where(*waiting)).scalar_one()
    return deadline_at
