"""The one table of allowed changes of a delivery's state, and the compare-and-set that enforces it.

A change happens only when the row still stands in one of the states from which the table allows it; whoever lost the race
learns so from the count of rows, and an illegal request raises before it reaches the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, update

from gateway.domain import DeliveryState as S
from gateway.errors import IllegalTransition
from gateway.ledger.schema import deliveries

ALLOWED: Mapping[S, frozenset[S]] = {
    S.PENDING: frozenset({S.SENDING, S.HELD, S.DROPPED}),
    # back to pending: the gateway stopped or crashed before the outcome was known
    S.SENDING: frozenset({S.DELIVERED, S.DEFERRED, S.HELD, S.PENDING}),
    S.DEFERRED: frozenset({S.SENDING, S.PENDING, S.HELD, S.DROPPED}),
    # back to pending: the destination answered success and does not have it, or the bytes are sent once more
    S.DELIVERED: frozenset({S.VERIFIED, S.PENDING, S.HELD}),
    S.VERIFIED: frozenset({S.PENDING}),
    # held still, for a reason that weighs more: its content was superseded
    S.HELD: frozenset({S.PENDING, S.DROPPED, S.HELD}),
    S.DROPPED: frozenset({S.PENDING}),
}


def sources_of(new: S) -> frozenset[S]:
    """Return the states from which a delivery may become `new`."""
    return frozenset(old for old, allowed in ALLOWED.items() if new in allowed)


def move(
    connection: Connection,
    delivery_ids: Sequence[int],
    new: S,
    *,
    now: float,
    only_from: Collection[S] | None = None,
    **columns: Any,
) -> int:
    """Change the deliveries to `new` where they stand in a state that allows it, and set `columns` with it.

    Returns how many changed. `only_from` narrows the states to start from. `now` is in UTC seconds since the epoch.

    Raises:
        IllegalTransition: `only_from` names a state from which `new` is never allowed.

    """
    allowed = sources_of(new)
    start = allowed if only_from is None else frozenset(only_from)
    if not start <= allowed:
        wrong = ", ".join(sorted(start - allowed))
        raise IllegalTransition(f"a delivery never goes from {wrong} to {new}")
    changed = 0
    for chunk in range(0, len(delivery_ids), 500):
        statement = (
            update(deliveries)
            .where(deliveries.c.id.in_(delivery_ids[chunk : chunk + 500]), deliveries.c.state.in_(sorted(start)))
            .values(state=new, changed_at=now, **columns)
        )
        changed += connection.execute(statement).rowcount
    return changed
