"""Ownership in the ledger: which node works on a row, in which of its epochs, and until when nobody else may take it over.

A node is one `gateway serve` under its ``[node] name``; each start of it is an epoch. A row that it claims (a delivery that is
being sent, a job that runs, a duty that it has begun) bears its name, its epoch and the end of a lease. A start resets what its own
node left, and an outcome counts only where the row is still held in the epoch in which it was claimed: a node that lost it changes
nothing. Rows that another node holds are left alone until their lease has run out. Every connection of a `Ledger` knows its owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, insert, or_, select, update

from gateway.core.domain import DEFAULT_NODE
from gateway.ledger.database.schema import nodes

LEASE_S = 300.0
"""The time after a claim for which no other node takes it over."""

OPTION = "gateway_owner"
"""The execution option under which an engine's connections carry their owner."""


@dataclass
class Owner:
    """A node at work: its name, and which of its starts this is; 0 before it has entered the ledger."""

    node: str = DEFAULT_NODE
    epoch: int = 0


_SOLE = Owner()


def owner_of(connection: Connection) -> Owner:
    """Return who works through `connection`."""
    owner: Owner = connection.get_execution_options().get(OPTION, _SOLE)
    return owner


def claimed(connection: Connection, now: float) -> dict[str, Any]:
    """Return the columns of a row that whoever works through `connection` claims at `now`."""
    owner = owner_of(connection)
    return {"node": owner.node, "epoch": owner.epoch, "lease_until": now + LEASE_S}


def is_own(connection: Connection, table: Table) -> ColumnElement[bool]:
    """Return the condition that a row is of this node, or from before nodes had names."""
    return or_(table.c.node.is_(None), table.c.node == owner_of(connection).node)


def is_left(connection: Connection, table: Table, now: float) -> ColumnElement[bool]:
    """Return the condition that nobody works on a row when this node starts: it is its own, or its lease has run out."""
    return or_(is_own(connection, table), table.c.lease_until < now)


def enter(connection: Connection, now: float) -> int:
    """Begin an epoch of this node and return its number."""
    name = owner_of(connection).node
    last = connection.execute(select(nodes.c.epoch).where(nodes.c.name == name)).scalar_one_or_none()
    if last is None:
        connection.execute(insert(nodes).values(name=name, epoch=1, started_at=now))
        return 1
    connection.execute(update(nodes).where(nodes.c.name == name).values(epoch=last + 1, started_at=now))
    return int(last) + 1
