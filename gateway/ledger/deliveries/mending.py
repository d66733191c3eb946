"""The effect of a changed configuration, or of a clock that was set back, on deliveries that wait.

Every function takes a `Connection` first and belongs into `Ledger.write`. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from gateway.core.domain import DeliveryState as S
from gateway.core.domain import Proof
from gateway.ledger.database.schema import deliveries
from gateway.ledger.database.transitions import move
from gateway.ledger.deliveries.claiming import CLAIMABLE, PRIORITIES, known_destinations, verify

_PULL_FORWARD = (
    update(deliveries)
    .where(
        deliveries.c.destination == bindparam("to"),
        deliveries.c.priority == bindparam("at"),
        CLAIMABLE,
        ~deliveries.c.awaits_transcoding,
        deliveries.c.due_at > bindparam("horizon"),
    )
    .values(due_at=bindparam("now"))
)

NOT_CONFIGURED = "the destination is no longer configured"
NO_PROOF_ASKED = "proved by status only: the destination is not asked for a proof any more"


def adapt(connection: Connection, proofs: Mapping[str, Proof | None], *, now: float) -> dict[str, int]:
    """Fit what waits to the configured destinations, before any of them works; returns how many were held, resumed and verified.

    `proofs` maps each destination to what a delivered instance is verified with at once, None where a proof is asked for later.
    Deliveries to a destination that is gone are held, and go on when it is back. Those that wait for a proof that
    nobody asks for any more are verified by their status.
    """
    # By name, and not by what they are not: so that the index finds them in a ledger of many millions.
    gone = deliveries.c.destination.in_([name for name in known_destinations(connection) if name not in proofs])
    held = move(connection, _ids(connection, gone, S.PENDING, S.DEFERRED, S.DELIVERED), S.HELD, now=now, reason=NOT_CONFIGURED)
    return {
        "held": held,
        "resumed": _resume(connection, sorted(proofs), now),
        "verified": sum(_settle(connection, name, proof, now) for name, proof in proofs.items() if proof is not None),
    }


def pull_forward(connection: Connection, destination: str, *, now: float, horizon_s: float) -> int:
    """Make due what is due later than `horizon_s` from `now`: the clock was set back since; returns how many.

    A delivery that waits for being transcoded is due when that is done, whatever the clock says.
    """
    values = {"to": destination, "horizon": now + horizon_s, "now": now}
    # One by one: each is a range of the index `deliveries_due`.
    return sum(connection.execute(_PULL_FORWARD, values | {"at": priority}).rowcount for priority in PRIORITIES)


def _resume(connection: Connection, names: list[str], now: float) -> int:
    back = deliveries.c.destination.in_(names) & (deliveries.c.reason == NOT_CONFIGURED)
    answered = _ids(connection, back & deliveries.c.status.is_not(None), S.HELD)
    columns: dict[str, Any] = {"only_from": [S.HELD], "due_at": now, "reason": None}
    # A destination that had answered before may have it.
    resumed = move(connection, answered, S.PENDING, now=now, uncertain=True, **columns)
    return resumed + move(connection, _ids(connection, back, S.HELD), S.PENDING, now=now, **columns)


def _settle(connection: Connection, destination: str, proof: Proof, now: float) -> int:
    delivered = _ids(connection, deliveries.c.destination == destination, S.DELIVERED)
    return verify(connection, delivered, proof, now=now, reason=NO_PROOF_ASKED)


def _ids(connection: Connection, which: ColumnElement[bool], *states: S) -> list[int]:
    statement = select(deliveries.c.id).where(which, deliveries.c.state.in_(states))
    return list(connection.execute(statement).scalars())
