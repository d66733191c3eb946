"""The bytes that are kept, that may go, and that are missing; and forgetting what is long settled.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since
the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select, text, update

from gateway.core.domain import SETTLED, Content, DeliveryState
from gateway.ledger.database import transitions
from gateway.ledger.database.ownership import is_own
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import commitments, deliveries, instances, jobs, retrievals
from gateway.ledger.received.instances import MISSING_REASON, BytesState

_KEPT = text("instances.bytes_state = 'kept'")
"""As a literal: SQLite uses the partial index `instances_kept` only where it can prove the condition without parameters."""

_READING = frozenset({DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEFERRED})


def kept_ids(connection: Connection, *, after: int = 0, limit: int = 500) -> list[int]:
    """Return the ids above `after` of routed instances whose bytes are kept, in order."""
    kept = and_(instances.c.id > after, instances.c.bytes_state == BytesState.KEPT, instances.c.routed)
    return list(connection.execute(select(instances.c.id).where(kept).order_by(instances.c.id).limit(limit)).scalars())


def releasable(connection: Connection, instance_ids: Sequence[int]) -> list[tuple[int, str]]:
    """Return (id, location) of those of `instance_ids` that are kept and whose every delivery is settled.

    Unrouted instances stay.
    """
    mine = deliveries.c.instance_id == instances.c.id
    owed = exists().where(mine, deliveries.c.state.not_in(sorted(SETTLED)))
    free = and_(instances.c.bytes_state == BytesState.KEPT, instances.c.routed, ~owed)
    found = []
    for chunk in chunks(instance_ids):
        statement = select(instances.c.id, instances.c.location).where(instances.c.id.in_(chunk), free)
        found += [(row.id, row.location) for row in connection.execute(statement)]
    return found


def mark_released(connection: Connection, instance_ids: Sequence[int]) -> list[str]:
    """Record that the bytes may be removed of those of `instance_ids` that are releasable now; return their locations."""
    free = releasable(connection, instance_ids)
    for chunk in chunks([instance_id for instance_id, _ in free]):
        connection.execute(update(instances).where(instances.c.id.in_(chunk)).values(bytes_state=BytesState.RELEASED))
    return [location for _, location in free]


def mark_missing(connection: Connection, instance_ids: Sequence[int], *, now: float) -> int:
    """Record that bytes are gone: kept instances become missing, what waits to be sent of them held. Returns how many.

    A delivery that is being sent ends by itself.
    """
    changed = 0
    waiting = {DeliveryState.PENDING, DeliveryState.DEFERRED}
    for chunk in chunks(instance_ids):
        kept = and_(instances.c.id.in_(chunk), instances.c.bytes_state == BytesState.KEPT)
        changed += connection.execute(update(instances).where(kept).values(bytes_state=BytesState.MISSING)).rowcount
        ids = list(connection.execute(select(deliveries.c.id).where(deliveries.c.instance_id.in_(chunk))).scalars())
        transitions.move(connection, ids, DeliveryState.HELD, now=now, only_from=waiting, reason=MISSING_REASON)
    return changed


def mark_kept(connection: Connection, instance_ids: Sequence[int]) -> int:
    """Record that missing bytes are there again; what is held waits for a person. Returns how many."""
    changed = 0
    for chunk in chunks(instance_ids):
        back = and_(instances.c.id.in_(chunk), instances.c.bytes_state == BytesState.MISSING)
        changed += connection.execute(update(instances).where(back).values(bytes_state=BytesState.KEPT)).rowcount
    return changed


def remembered_since(connection: Connection) -> float | None:
    """Return when the oldest migration that runs was begun, None where none does: what came since then is its to report."""
    running = and_(jobs.c.kind == "migrate", jobs.c.state == "running")
    begun = connection.execute(select(func.min(jobs.c.created_at)).where(running)).scalar_one()
    return None if begun is None else float(begun)


def forgettable(connection: Connection, *, before: float, limit: int = 500) -> list[tuple[int, str]]:
    """Return (id, location) of up to `limit` instances received before `before` whose bytes are released, the oldest first.

    An instance that superseded another stays for as long as the other is remembered.
    """
    statement = select(instances.c.id, instances.c.location).where(*_forgotten(before)).order_by(instances.c.received_at)
    return [(row.id, row.location) for row in connection.execute(statement.limit(limit))]


def forget(connection: Connection, found: Sequence[tuple[int, str]], *, before: float) -> int:
    """Delete those of `found` that are still forgettable and at the same locations, of which nothing is left. Returns how many."""
    count = 0
    for chunk in chunks(found):
        wanted = dict(chunk)
        old = and_(instances.c.id.in_(list(wanted)), *_forgotten(before))
        rows = connection.execute(select(instances.c.id, instances.c.location).where(old))
        ids = [row.id for row in rows if row.location == wanted[row.id]]
        connection.execute(delete(instances).where(instances.c.id.in_(ids)))
        count += len(ids)
    return count


def _forgotten(before: float) -> tuple[ColumnElement[bool], ...]:
    other = instances.alias("other")
    return (
        instances.c.bytes_state == BytesState.RELEASED,
        instances.c.received_at < before,
        ~exists().where(other.c.superseded_by == instances.c.id),
    )


def kept_prefixes(connection: Connection, start: str, length: int) -> set[str]:
    """Return the first `length` characters of the locations that begin with `start` and whose bytes are kept, each once."""
    prefix = func.substr(instances.c.location, 1, length)
    return set(connection.execute(select(prefix).distinct().where(_KEPT, instances.c.location.startswith(start))).scalars())


def movable(connection: Connection, instance_ids: Sequence[int]) -> list[int]:
    """Return those of `instance_ids` that are kept and that no delivery reads or is about to read."""
    found: list[int] = []
    for chunk in chunks(instance_ids):
        quiet = and_(instances.c.id.in_(chunk), instances.c.bytes_state == BytesState.KEPT, ~_read())
        found += connection.execute(select(instances.c.id).where(quiet)).scalars()
    return found


def at_this_node(connection: Connection, instance_ids: Sequence[int]) -> list[int]:
    """Return those of `instance_ids` whose bytes are this node's to have."""
    found: list[int] = []
    for chunk in chunks(instance_ids):
        mine = (instances.c.id.in_(chunk), is_own(connection, instances))
        found += connection.execute(select(instances.c.id).where(*mine).order_by(instances.c.id)).scalars()
    return found


def relocate(connection: Connection, instance_id: int, location: str, content: Content) -> bool:
    """Record that the bytes of an instance are no longer at `location` but where `content` says; tells whether that was done.

    It is not where the instance is no longer kept at `location`, or where a delivery of it reads from there or is about to.
    """
    here = and_(instances.c.id == instance_id, instances.c.location == location, instances.c.bytes_state == BytesState.KEPT)
    moved = {"location": content.location, "content_offset": content.offset}
    return connection.execute(update(instances).where(here, ~_read()).values(moved)).rowcount == 1


def _read() -> ColumnElement[bool]:
    return exists().where(deliveries.c.instance_id == instances.c.id, deliveries.c.state.in_(sorted(_READING)))


def forget_asked(connection: Connection, *, before: float, limit: int = 20) -> int:
    """Delete up to `limit` retrievals, jobs and answered commitments each that ended before `before`. Returns how many.

    A job goes once its retrievals are gone; one that was interrupted goes too: given again, the command begins anew.
    """
    ended = and_(jobs.c.state != "running", jobs.c.changed_at < before)
    of_ended = select(retrievals.c.id).join(jobs, jobs.c.id == retrievals.c.job_id).where(ended)
    empty = select(jobs.c.id).where(ended, ~exists().where(retrievals.c.job_id == jobs.c.id))
    answered = select(commitments.c.transaction_uid).where(commitments.c.answered_at < before)
    count = 0
    for key, old in ((retrievals.c.id, of_ended), (jobs.c.id, empty), (commitments.c.transaction_uid, answered)):
        keys = list(connection.execute(old.limit(limit)).scalars())
        connection.execute(delete(key.table).where(key.in_(keys)))
        count += len(keys)
    return count
