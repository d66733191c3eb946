"""The one table of allowed changes of a delivery's state, and the compare-and-set that enforces it.

A change happens only when the row still stands in one of the states from which the table allows it; whoever lost the race
learns so from the count of rows, and an illegal request raises before it reaches the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Update, bindparam, update

from gateway.core.domain import DeliveryState as S
from gateway.core.errors import IllegalTransition
from gateway.ledger.database.ownership import Owner
from gateway.ledger.database.rows import RowUpdate, chunks
from gateway.ledger.database.schema import deliveries

ALLOWED: Mapping[S, frozenset[S]] = {
    S.PENDING: frozenset({S.SENDING, S.HELD, S.DROPPED}),
    # back to pending: the gateway stopped or crashed before the outcome was known
    # verified at once where the adapter made sure itself, or no more than the status is asked for
    S.SENDING: frozenset({S.DELIVERED, S.VERIFIED, S.DEFERRED, S.HELD, S.PENDING}),
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
    owner: Owner | None = None,
    **columns: Any,
) -> int:
    """Change the deliveries to `new` where they stand in a state that allows it, and set `columns` with it.

    Returns how many changed. `only_from` narrows the states to start from; with `owner` only those change that it still holds, in
    its epoch. `now` is in UTC seconds since the epoch.

    Raises:
        IllegalTransition: `only_from` names a state from which `new` is never allowed.

    """
    start = _start(new, None if only_from is None else frozenset(only_from))
    statement, changed = _statement(tuple(sorted(columns)), held=owner is not None), 0
    holder: dict[str, Any] = {} if owner is None else {"holder": owner.node, "holder_epoch": owner.epoch}
    named = {f"new_{name}": value for name, value in columns.items()}
    for chunk in chunks(delivery_ids):
        values = {"ids": chunk, "start": start, "new_state": new, "new_changed_at": now}
        changed += connection.execute(statement, values | named | holder).rowcount
    return changed


class Move:
    """One change of state for many deliveries, each at a time of its own: the same compare-and-set as `move`, built once."""

    def __init__(self, new: S, *, only_from: Collection[S], due: bool = False, **columns: Any) -> None:
        """Change deliveries from one of `only_from` to `new` and set `columns`; with `due` they may be claimed from then on.

        Raises:
            IllegalTransition: `only_from` names a state from which `new` is never allowed.

        """
        start = [state.value for state in _start(new, frozenset(only_from))]
        moved = {"state": new.value, "changed_at": bindparam("moved_at", required=False), **columns}
        moved |= {"due_at": bindparam("moved_at", required=False)} if due else {}
        chosen = deliveries.c.id == bindparam("moved_id", required=False), deliveries.c.state.in_(start)
        self._update = RowUpdate(update(deliveries).where(*chosen).values(moved), "moved_id", "moved_at")

    def __call__(self, connection: Connection, moved: Sequence[tuple[int, float]]) -> int:
        """Change those deliveries, each given as its id and the time (UTC seconds since the epoch); return how many changed."""
        return self._update(connection, moved)


@cache
def _start(new: S, only_from: frozenset[S] | None) -> tuple[S, ...]:
    allowed = sources_of(new)
    start = allowed if only_from is None else only_from
    if not start <= allowed:
        wrong = ", ".join(sorted(start - allowed))
        raise IllegalTransition(f"a delivery never goes from {wrong} to {new}")
    return tuple(sorted(start))


@cache
def _statement(columns: tuple[str, ...], *, held: bool) -> Update:
    """Return the compare-and-set of the state, and of who holds it, with `columns`.

    Built once: that takes longer than to carry it out.
    """
    chosen = deliveries.c.id.in_(bindparam("ids", expanding=True))
    start = deliveries.c.state.in_(bindparam("start", expanding=True))
    values = {name: bindparam(f"new_{name}", type_=deliveries.c[name].type) for name in ("state", "changed_at", *columns)}
    mine = (deliveries.c.node == bindparam("holder"), deliveries.c.epoch == bindparam("holder_epoch")) if held else ()
    return update(deliveries).where(chosen, start, *mine).values(values)
