"""What arrived: instances, the arrivals that brought them, and where their bytes stand.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. `record` is the only way
in: it decides, inside the transaction, whether an instance is new, already there, or contradicts what is there, so that the
same SOP Instance UID arriving on two associations at once is decided once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, and_, bindparam, insert, select, update

from gateway.domain import SETTLED, Content, DeliveryState, InstanceIdentity, Provenance
from gateway.ledger import transitions
from gateway.ledger.schema import arrivals, deliveries, instances

T = TypeVar("T")

MISSING_REASON = "the spooled bytes are missing"
SUPERSEDED = "superseded by other content under the same SOP Instance UID"

_CHUNK = 500
"""Values in one ``IN``: within the limit of bound parameters of every database."""

_UNDERWAY = frozenset({DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DEFERRED, DeliveryState.DELIVERED})
_FRESH: dict[str, Any] = {"attempts": 0, "status": None, "reason": None, "uncertain": False, "lost": 0, "proof": None}


# Built once: an instance costs the writer less to record than its statements to build.
_CURRENT: Select[Any] = (
    select(
        instances.c.id,
        instances.c.digest,
        instances.c.content_length,
        instances.c.content_offset,
        instances.c.location,
        instances.c.bytes_state,
        instances.c.received_at,
    )
    .where(instances.c.sop_instance_uid == bindparam("uid"), instances.c.superseded_by.is_(None))
    .order_by(instances.c.id.desc())
    .limit(1)
)
_INSERT_INSTANCE = insert(instances)
_INSERT_ARRIVAL = insert(arrivals).inline()
_INSERT_DELIVERIES = insert(deliveries).inline()


class BytesState(StrEnum):
    """Where an instance's bytes stand."""

    KEPT = "kept"
    RELEASED = "released"
    MISSING = "missing"


class ArrivalOutcome(StrEnum):
    """What an arrival was, seen against the instances that the ledger knew."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance whose bytes are durable, about to be recorded. `at` is in UTC seconds since the epoch."""

    identity: InstanceIdentity
    provenance: Provenance
    content: Content
    destinations: tuple[str, ...]
    at: float
    retrieval_id: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival.

    `bytes_needed` is False when the ledger refers to bytes that it already had: the arrival's own may be removed, once it is
    sure that those it `rests_on` are there. `queued` names those of the arrival's destinations that it is still on its way to.
    """

    instance_id: int
    outcome: ArrivalOutcome
    arrival: Arrival
    bytes_needed: bool
    queued: tuple[str, ...]
    rests_on: Content | None = None
    """The content that is still to be delivered in place of the arrival's own; None where there is none."""


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One row of `instances`."""

    id: int
    identity: InstanceIdentity
    content: Content
    provenance: Provenance
    bytes_state: BytesState
    superseded_by: int | None
    routed: bool
    received_at: float


def record(connection: Connection, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record `arrival` with its deliveries and return what it was.

    The SOP Instance UID is unknown: a new instance. Known with the same content (digest and length): no second instance; what
    its destinations had settled is delivered to them again, from the new bytes where the old ones were released or are missing.
    Known with other content: both are kept, the newer is delivered, and what the older one still owed is held with the reason.

    With ``again=False`` (``send``) the same content is only owed to destinations that never settled it. With ``late=True``
    (recovery) the arrival may be older than what was recorded after it.
    """
    known = _current(connection, arrival.identity.sop_instance_uid)
    if known is None:
        return _record_new(connection, arrival)
    if not _same_content(known, arrival.content):
        return _record_conflict(connection, arrival, known, older=late and arrival.at < known.received_at)
    return _record_known(connection, arrival, known, again=again)


def _current(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    return connection.execute(_CURRENT, {"uid": sop_instance_uid}).first()


def _same_content(row: Row[Any], content: Content) -> bool:
    return bool(row.digest == content.digest and row.content_length == content.length)


def _record_new(connection: Connection, arrival: Arrival, outcome: ArrivalOutcome = ArrivalOutcome.NEW) -> Recorded:
    values = _instance_values(arrival) | {"routed": bool(arrival.destinations), "bytes_state": BytesState.KEPT}
    key = connection.execute(_INSERT_INSTANCE, values).inserted_primary_key
    assert key is not None
    instance_id = int(key[0])
    _insert_deliveries(connection, instance_id, arrival.destinations, arrival.at)
    _insert_arrival(connection, arrival, instance_id, outcome)
    return Recorded(instance_id, outcome, arrival, bytes_needed=True, queued=arrival.destinations)


def _record_conflict(connection: Connection, arrival: Arrival, known: Row[Any], *, older: bool) -> Recorded:
    recorded = _record_new(connection, arrival, ArrivalOutcome.CONFLICT)
    if older:
        _supersede(connection, recorded.instance_id, known.id, arrival.at)
        return replace(recorded, queued=())
    _supersede(connection, known.id, recorded.instance_id, arrival.at)
    return recorded


def _record_known(connection: Connection, arrival: Arrival, known: Row[Any], *, again: bool) -> Recorded:
    owed = again or _owes(connection, known.id, arrival.destinations)
    # A file sent in place is not ours: it may have gone since, while what came now is there.
    taken = owed and (known.bytes_state != BytesState.KEPT or known.location.startswith("file:"))
    if taken:
        replacement = _instance_values(arrival) | {"bytes_state": BytesState.KEPT}
        connection.execute(update(instances).where(instances.c.id == known.id).values(replacement))
    if again:
        _owe_again(connection, known, arrival)
        _insert_arrival(connection, arrival, known.id, ArrivalOutcome.DUPLICATE)
    if known.bytes_state == BytesState.MISSING:
        _bytes_came(connection, known.id, arrival.at)
    if known.bytes_state == BytesState.MISSING or not again:
        _revive(connection, known.id, arrival.destinations, {DeliveryState.HELD}, arrival.at)
    add_deliveries(connection, known.id, arrival.destinations, now=arrival.at)
    queued = underway(connection, known.id, arrival.destinations)
    relied = owed and not taken
    rests_on = Content(known.location, known.content_offset, known.content_length, known.digest) if relied else None
    return Recorded(known.id, ArrivalOutcome.DUPLICATE, arrival, bytes_needed=taken, queued=queued, rests_on=rests_on)


def _owe_again(connection: Connection, known: Row[Any], arrival: Arrival) -> None:
    """Owe what was settled once more: whoever sends it again wants it there, whether its bytes happen to be kept still or not."""
    unsettled = and_(deliveries.c.instance_id == known.id, deliveries.c.state.not_in(sorted(SETTLED)))
    done = known.bytes_state == BytesState.RELEASED or connection.execute(select(deliveries.c.id).where(unsettled)).first() is None
    if done or arrival.destinations:
        # What no route takes this time is kept as unrouted.
        routed = bool(arrival.destinations)
        connection.execute(update(instances).where(instances.c.id == known.id).values(routed=routed))
    _revive(connection, known.id, arrival.destinations, SETTLED, arrival.at)


def _owes(connection: Connection, instance_id: int, destinations: Sequence[str]) -> bool:
    settled = and_(_of(instance_id, destinations), deliveries.c.state.in_(sorted(SETTLED)))
    rows = connection.execute(select(deliveries.c.destination).where(settled)).scalars()
    return not set(destinations) <= set(rows)


def _of(instance_id: int, destinations: Sequence[str]) -> Any:
    return and_(deliveries.c.instance_id == instance_id, deliveries.c.destination.in_(destinations))


def _supersede(connection: Connection, older_id: int, newer_id: int, now: float) -> None:
    connection.execute(update(instances).where(instances.c.id == older_id).values(superseded_by=newer_id))
    ids = _delivery_ids(connection, deliveries.c.instance_id == older_id)
    waiting = {DeliveryState.PENDING, DeliveryState.DEFERRED, DeliveryState.HELD}
    transitions.move(connection, ids, DeliveryState.HELD, now=now, only_from=waiting, reason=SUPERSEDED)


def _revive(
    connection: Connection, instance_id: int, destinations: Sequence[str], states: Collection[DeliveryState], now: float
) -> None:
    ids = _delivery_ids(connection, _of(instance_id, destinations))
    transitions.move(connection, ids, DeliveryState.PENDING, now=now, only_from=states, due_at=now, **_FRESH)


def _bytes_came(connection: Connection, instance_id: int, now: float) -> None:
    """Let go on, at every destination, what was held for want of bytes only."""
    ids = _delivery_ids(connection, and_(deliveries.c.instance_id == instance_id, deliveries.c.reason == MISSING_REASON))
    transitions.move(connection, ids, DeliveryState.PENDING, now=now, only_from={DeliveryState.HELD}, due_at=now, reason=None)


def _delivery_ids(connection: Connection, which: Any) -> list[int]:
    return list(connection.execute(select(deliveries.c.id).where(which)).scalars())


def _instance_values(arrival: Arrival) -> dict[str, Any]:
    identity, provenance, content = arrival.identity, arrival.provenance, arrival.content
    return {
        "sop_instance_uid": identity.sop_instance_uid,
        "sop_class_uid": identity.sop_class_uid,
        "transfer_syntax_uid": identity.transfer_syntax_uid,
        "study_instance_uid": identity.study_instance_uid,
        "series_instance_uid": identity.series_instance_uid,
        "location": content.location,
        "content_offset": content.offset,
        "content_length": content.length,
        "digest": content.digest,
        "source": provenance.source,
        "calling_ae": provenance.calling_ae,
        "called_ae": provenance.called_ae,
        "address": provenance.address,
        "association": provenance.association,
        "received_at": arrival.at,
    }


def _insert_arrival(connection: Connection, arrival: Arrival, instance_id: int, outcome: ArrivalOutcome) -> None:
    values = {
        "instance_id": instance_id,
        "sop_instance_uid": arrival.identity.sop_instance_uid,
        "retrieval_id": arrival.retrieval_id,
        "outcome": outcome,
        "move_originator_ae": arrival.provenance.move_originator_ae,
        "move_originator_message_id": arrival.provenance.move_originator_message_id,
        "at": arrival.at,
    }
    connection.execute(_INSERT_ARRIVAL, values)


def _insert_deliveries(
    connection: Connection, instance_id: int, destinations: Iterable[str], now: float, held: str | None = None
) -> None:
    state = DeliveryState.HELD if held else DeliveryState.PENDING
    new = {"instance_id": instance_id, "state": state, "due_at": now, "changed_at": now, "reason": held}
    rows = [new | {"destination": name} for name in destinations]
    if rows:
        connection.execute(_INSERT_DELIVERIES, rows)


def add_deliveries(
    connection: Connection, instance_id: int, destinations: Sequence[str], *, now: float, held: str | None = None
) -> None:
    """Queue the instance for those `destinations` that it has no delivery to yet; with `held`, hold it there for that reason."""
    known = set(connection.execute(select(deliveries.c.destination).where(_of(instance_id, destinations))).scalars())
    new = tuple(name for name in destinations if name not in known)
    if new:
        _insert_deliveries(connection, instance_id, new, now, held)
        connection.execute(update(instances).where(instances.c.id == instance_id).values(routed=True))


def route_anew(connection: Connection, instance_id: int, destinations: Sequence[str], *, now: float) -> None:
    """Queue an unrouted instance for `destinations`, also for those that settled it when it came before."""
    _revive(connection, instance_id, destinations, SETTLED, now)
    add_deliveries(connection, instance_id, destinations, now=now)
    connection.execute(update(instances).where(instances.c.id == instance_id).values(routed=True))


def send_again(connection: Connection, instance_id: int, destinations: Sequence[str], *, now: float) -> tuple[str, ...]:
    """Queue the instance, whose bytes are there, for `destinations` that have not settled it; return where it is underway.

    A held delivery is tried again. A superseded instance is held.
    """
    mine = instances.c.id == instance_id
    superseded = connection.execute(select(instances.c.superseded_by).where(mine)).scalar_one() is not None
    if _owes(connection, instance_id, destinations):
        connection.execute(update(instances).where(mine).values(bytes_state=BytesState.KEPT))
        if not superseded:
            _revive(connection, instance_id, destinations, {DeliveryState.HELD}, now)
        add_deliveries(connection, instance_id, destinations, now=now, held=SUPERSEDED if superseded else None)
    return underway(connection, instance_id, destinations)


def held(connection: Connection, instance_id: int, destinations: Sequence[str]) -> bool:
    """Tell whether the instance is held at any of `destinations`."""
    waiting = and_(_of(instance_id, destinations), deliveries.c.state == DeliveryState.HELD)
    return connection.execute(select(deliveries.c.id).where(waiting).limit(1)).first() is not None


def underway(connection: Connection, instance_id: int, destinations: Sequence[str]) -> tuple[str, ...]:
    """Return those of `destinations`, in their order, that the instance is neither settled nor held at."""
    moving = and_(_of(instance_id, destinations), deliveries.c.state.in_(sorted(_UNDERWAY)))
    names = set(connection.execute(select(deliveries.c.destination).where(moving)).scalars())
    return tuple(name for name in destinations if name in names)


def find(connection: Connection, sop_instance_uid: str) -> list[StoredInstance]:
    """Return every instance recorded under the UID, the newest first."""
    mine = instances.c.sop_instance_uid == sop_instance_uid
    return [_stored(row) for row in connection.execute(select(instances).where(mine).order_by(instances.c.id.desc()))]


def get(connection: Connection, instance_id: int) -> StoredInstance | None:
    """Return the instance with this id."""
    row = connection.execute(select(instances).where(instances.c.id == instance_id)).first()
    return None if row is None else _stored(row)


def at_locations(connection: Connection, locations: Collection[str]) -> dict[str, StoredInstance]:
    """Return the instances whose bytes are recorded at `locations`, by location."""
    found = {}
    for chunk in chunks(list(locations)):
        for row in connection.execute(select(instances).where(instances.c.location.in_(chunk))):
            found[row.location] = _stored(row)
    return found


def with_location_prefix(connection: Connection, prefix: str) -> list[tuple[int, str, BytesState]]:
    """Return (id, location, bytes state) of the instances whose location starts with `prefix`, in order of location.

    The last character of `prefix` must be ASCII, and locations are compared byte by byte.
    """
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    within = and_(instances.c.location >= prefix, instances.c.location < end)
    statement = select(instances.c.id, instances.c.location, instances.c.bytes_state).where(within).order_by(instances.c.location)
    return [(row.id, row.location, BytesState(row.bytes_state)) for row in connection.execute(statement)]


def unrouted(connection: Connection, *, after: int = 0, limit: int = 500) -> list[StoredInstance]:
    """Return instances with id above `after` that no route matched and that are kept and current, in order of id."""
    waiting = and_(
        instances.c.id > after,
        ~instances.c.routed,
        instances.c.bytes_state == BytesState.KEPT,
        instances.c.superseded_by.is_(None),
    )
    return [_stored(row) for row in connection.execute(select(instances).where(waiting).order_by(instances.c.id).limit(limit))]


def _stored(row: Row[Any]) -> StoredInstance:
    identity = InstanceIdentity(
        row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, row.study_instance_uid, row.series_instance_uid
    )
    content = Content(row.location, row.content_offset, row.content_length, row.digest)
    provenance = Provenance(row.calling_ae, row.called_ae, row.address, row.association, row.source)
    state = BytesState(row.bytes_state)
    return StoredInstance(row.id, identity, content, provenance, state, row.superseded_by, row.routed, row.received_at)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `values` in parts that fit into one ``IN``."""
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
