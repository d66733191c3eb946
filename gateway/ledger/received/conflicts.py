"""Contents under one SOP Instance UID that turn out to differ in encoding only: the same elements and pixels are no conflict.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since the
epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, or_, select, update

from gateway.core.domain import Content
from gateway.core.domain import DeliveryState as S
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.database.transitions import move
from gateway.ledger.received.instances import SAME_CONTENT, SUPERSEDED

_OLDER, _NEWER = instances.alias("older"), instances.alias("newer")
_older_id = _OLDER.c.id + 0
"""As a sum: else SQLite reads all instances in the order of their ids, and not those few that its index of superseded ones has."""

MOST_NEWER = 8
"""A content is compared with so many of those that came next: what is not compared counts as different."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two contents under one SOP Instance UID, whose bytes are both there, each with its transfer syntax UID."""

    older_id: int
    newer_id: int
    older: tuple[Content, str]
    newer: tuple[Content, str]


def differ(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the condition that two instances are not known to differ in encoding only."""
    return func.coalesce(one.c.same_as, one.c.id) != func.coalesce(other.c.same_as, other.c.id)


def pairs(connection: Connection, *, after: tuple[int, int], limit: int) -> list[Pair]:
    """Return pairs above `after` (the ids of the older and the newer), in order, that are not known to differ in encoding only."""
    older_id, newer_id = after
    above = or_(_older_id > older_id, and_(_older_id == older_id, _NEWER.c.id > newer_id))
    return _pairs(connection, above, limit)


def pairs_of(connection: Connection, older: Sequence[int]) -> list[Pair]:
    """Return the pairs, in order, of these older contents that are not known to differ in encoding only."""
    return [pair for some in chunks(sorted(older)) for pair in _pairs(connection, _OLDER.c.id.in_(some), MOST_NEWER * len(some))]


def _pairs(connection: Connection, which: ColumnElement[bool], limit: int) -> list[Pair]:
    older, newer, any_newer = _OLDER, _NEWER, instances.alias("other")
    came_after = (
        select(any_newer.c.id)
        .where(any_newer.c.sop_instance_uid == older.c.sop_instance_uid, any_newer.c.id > older.c.id)
        .order_by(any_newer.c.id)
        .limit(MOST_NEWER)
        .correlate(older)
    )

    def there(one: FromClause) -> ColumnElement[bool]:
        return or_(one.c.bytes_state == "kept", one.c.location.startswith("file:"))

    statement = (
        select(older.c.id, newer.c.id, *_content(older), *_content(newer))
        .select_from(older.join(newer, newer.c.id.in_(came_after)))
        .where(older.c.superseded_by.is_not(None), which, there(older), there(newer), differ(older, newer))
        .order_by(_older_id, newer.c.id)
        .limit(limit)
    )
    return [
        Pair(row[0], row[1], (Content(*row[2:6]), row[6]), (Content(*row[7:11]), row[11])) for row in connection.execute(statement)
    ]


def mark_same(connection: Connection, pair: Pair, *, now: float) -> int:
    """Record that both hold the same; what is held of the older one in favour of the newer is dropped. Returns how many were."""
    first = func.coalesce(instances.c.same_as, instances.c.id)
    leader = connection.execute(select(first).where(instances.c.id == pair.older_id)).scalar_one_or_none()
    if leader is None:
        return 0
    follows = or_(instances.c.id == pair.newer_id, instances.c.same_as == pair.newer_id)
    connection.execute(update(instances).where(follows, instances.c.sop_instance_uid == _uid_of(pair)).values(same_as=leader))
    # One that a person dropped goes in nobody's place.
    goes = or_(deliveries.c.state != S.DROPPED, deliveries.c.reason == SAME_CONTENT)
    newer_at = select(deliveries.c.destination).where(deliveries.c.instance_id == pair.newer_id, goes)
    redundant = select(deliveries.c.id).where(
        deliveries.c.instance_id == pair.older_id,
        deliveries.c.superseded,
        deliveries.c.state == S.HELD,
        deliveries.c.reason == SUPERSEDED,
        deliveries.c.destination.in_(newer_at),
    )
    ids = list(connection.execute(redundant).scalars())
    return move(connection, ids, S.DROPPED, now=now, only_from=[S.HELD], reason=SAME_CONTENT)


def _uid_of(pair: Pair) -> Any:
    return select(instances.c.sop_instance_uid).where(instances.c.id == pair.newer_id).scalar_subquery()


def _content(one: FromClause) -> tuple[ColumnElement[Any], ...]:
    return one.c.location, one.c.content_offset, one.c.content_length, one.c.digest, one.c.transfer_syntax_uid
