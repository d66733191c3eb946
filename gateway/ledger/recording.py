"""Recording arrivals: the only way by which instances get into the ledger.

Inside the transaction it is decided whether an instance is new, already there, or contradicts what is there; so the same SOP
Instance UID that arrives on two associations at once is decided once. All functions belong into `Ledger.write`.

`record_many` leaves the ledger as `record`, one by one in the same order, does; what is new costs a share of four statements then.
Ids of instances are given here, as the highest plus one: there is one writer, and what is rolled back leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, exists, func, select, update

from gateway.domain import SETTLED, Content, DeliveryState
from gateway.ledger import transitions
from gateway.ledger.instances import (
    MISSING_REASON,
    Arrival,
    ArrivalOutcome,
    BytesState,
    Recorded,
    add_deliveries,
    chunks,
    delivery_ids,
    hasten,
    make_newest,
    revive,
    send_again,
    supersede,
    underway,
    verified,
)
from gateway.ledger.rows import RowInsert
from gateway.ledger.schema import arrivals, deliveries, instances

_OLDER = instances.alias("older")

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
        exists().where(_OLDER.c.superseded_by == instances.c.id).label("has_older"),
    )
    .where(instances.c.sop_instance_uid == bindparam("uid"), instances.c.superseded_by.is_(None))
    .order_by(instances.c.id.desc())
    .limit(1)
)
_KNOWN: Select[Any] = select(instances.c.sop_instance_uid).where(
    instances.c.sop_instance_uid.in_(bindparam("uids", expanding=True)), instances.c.superseded_by.is_(None)
)
_HIGHEST_ID = select(func.max(instances.c.id))

_BROUGHT = (
    instances.c.sop_instance_uid,
    instances.c.sop_class_uid,
    instances.c.transfer_syntax_uid,
    instances.c.study_instance_uid,
    instances.c.series_instance_uid,
    instances.c.location,
    instances.c.content_offset,
    instances.c.content_length,
    instances.c.digest,
    instances.c.source,
    instances.c.calling_ae,
    instances.c.called_ae,
    instances.c.address,
    instances.c.association,
    instances.c.received_at,
)
"""What the bytes that came bring with them, new or in place of others."""

_INSERT_INSTANCES = RowInsert(instances.c.id, *_BROUGHT, instances.c.routed)
_INSERT_ARRIVALS = RowInsert(
    arrivals.c.instance_id,
    arrivals.c.sop_instance_uid,
    arrivals.c.retrieval_id,
    arrivals.c.outcome,
    arrivals.c.move_originator_ae,
    arrivals.c.move_originator_message_id,
    arrivals.c.at,
)
_INSERT_DELIVERIES = RowInsert(
    deliveries.c.instance_id,
    deliveries.c.destination,
    deliveries.c.state,
    deliveries.c.due_at,
    deliveries.c.changed_at,
    deliveries.c.mode,
    deliveries.c.priority,
)


def record(connection: Connection, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record `arrival` with its deliveries and return what it was.

    The SOP Instance UID is unknown: a new instance. Known with the same content (digest and length): no second instance; what
    its destinations had settled is delivered to them again, from the new bytes where the old ones were released or are missing.
    Known with other content: both are kept; where the newer one goes, what the older one still owed there is held with the reason,
    and elsewhere the older one goes on.

    With ``again=False`` (``send``) the same content is only owed to destinations that have not verified it. With ``late=True``
    (recovery) the arrival may be older than what was recorded after it.
    """
    known = _current(connection, arrival.identity.sop_instance_uid)
    if known is None:
        return _record_new(connection, [arrival])[0]
    if not _same_content(known, arrival.content):
        return _record_conflict(connection, arrival, known, older=late and arrival.at < known.received_at)
    return _record_known(connection, arrival, known, again=again)


def record_anew(connection: Connection, arrival: Arrival) -> Recorded:
    """Record `arrival`, which is to get to its destinations whatever became of it there before, and return what it was.

    Beside what `record` does, what is held there is tried again, and a content that another one superseded is delivered in its
    place: files stay where they are, so one that was recorded before may be wanted over what came after it.
    """
    _reinstate(connection, arrival)
    recorded = record(connection, arrival)
    mine, at = recorded.instance_id, arrival.at
    queued = send_again(connection, mine, arrival.destinations, now=at, priority=arrival.priority, newest=True)
    make_newest(connection, mine, queued, at)
    return replace(recorded, queued=queued)


def record_many(connection: Connection, some: Sequence[Arrival]) -> list[Recorded]:
    """Record `some` arrivals as `record` does one by one, and return what each was, in their order."""
    known = _known(connection, [arrival.identity.sop_instance_uid for arrival in some])
    recorded: list[Recorded] = []
    new: list[Arrival] = []
    for arrival in some:
        uid = arrival.identity.sop_instance_uid
        if uid not in known:
            known.add(uid)
            new.append(arrival)
            continue
        # What comes again is decided against everything before it.
        recorded += _record_new(connection, new)
        recorded.append(record(connection, arrival))
        new = []
    return recorded + _record_new(connection, new)


def _known(connection: Connection, uids: Sequence[str]) -> set[str]:
    return {uid for chunk in chunks(uids) for uid in connection.execute(_KNOWN, {"uids": chunk}).scalars()}


def _current(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    return connection.execute(_CURRENT, {"uid": sop_instance_uid}).first()


def _same_content(row: Row[Any], content: Content) -> bool:
    return bool(row.digest == content.digest and row.content_length == content.length)


def _record_new(connection: Connection, new: Sequence[Arrival], outcome: ArrivalOutcome = ArrivalOutcome.NEW) -> list[Recorded]:
    if not new:
        return []
    first = (connection.execute(_HIGHEST_ID).scalar_one() or 0) + 1
    numbered = list(enumerate(new, first))
    _INSERT_INSTANCES(connection, [_instance_row(key, arrival) for key, arrival in numbered])
    _INSERT_DELIVERIES(connection, [row for key, arrival in numbered for row in _delivery_rows(key, arrival)])
    _INSERT_ARRIVALS(connection, [_arrival_row(key, arrival, outcome) for key, arrival in numbered])
    return [Recorded(key, outcome, arrival, bytes_needed=True, queued=arrival.destinations) for key, arrival in numbered]


def _record_conflict(connection: Connection, arrival: Arrival, known: Row[Any], *, older: bool) -> Recorded:
    (recorded,) = _record_new(connection, [arrival], ArrivalOutcome.CONFLICT)
    mine = recorded.instance_id
    if older:
        _point(connection, mine, known.id)
        _stop_older(connection, arrival, mine)
        return replace(recorded, queued=underway(connection, mine, arrival.destinations))
    _point(connection, known.id, mine)
    make_newest(connection, mine, arrival.destinations, arrival.at)
    return recorded


def _record_known(connection: Connection, arrival: Arrival, known: Row[Any], *, again: bool) -> Recorded:
    owed = again or not verified(connection, known.id, arrival.destinations)
    # Only where there is other content can anything be newer or older.
    before = underway(connection, known.id, arrival.destinations) if known.has_older else ()
    # A file sent in place is not ours: it may have gone since, while what came now is there.
    taken = owed and (known.bytes_state != BytesState.KEPT or known.location.startswith("file:"))
    if taken:
        replacement = dict(zip(_BROUGHT, _instance_values(arrival), strict=True)) | {instances.c.bytes_state: BytesState.KEPT}
        connection.execute(update(instances).where(instances.c.id == known.id).values(replacement))
    if again:
        _owe_again(connection, known, arrival)
        _INSERT_ARRIVALS(connection, [_arrival_row(known.id, arrival, ArrivalOutcome.DUPLICATE)])
    if known.bytes_state == BytesState.MISSING:
        _bytes_came(connection, known.id, arrival.at)
    if known.bytes_state == BytesState.MISSING or not again:
        # A file that is sent again after it was dropped is wanted after all.
        tried_again = {DeliveryState.HELD} if again else {DeliveryState.HELD, DeliveryState.DROPPED}
        revive(connection, known.id, arrival.destinations, tried_again, arrival.at)
    add_deliveries(connection, known.id, arrival.destinations, now=arrival.at, modes=arrival.modes, priority=arrival.priority)
    hasten(connection, known.id, arrival.destinations, arrival.priority)
    queued = underway(connection, known.id, arrival.destinations)
    if known.has_older and (begun := [name for name in queued if name not in before]):
        make_newest(connection, known.id, begun, arrival.at)
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
    revive(connection, known.id, arrival.destinations, SETTLED, arrival.at)


def _point(connection: Connection, older_id: int, newer_id: int) -> None:
    """Record that one content came after another under their SOP Instance UID."""
    connection.execute(update(instances).where(instances.c.id == older_id).values(superseded_by=newer_id))


def _stop_older(connection: Connection, arrival: Arrival, instance_id: int) -> None:
    """Hold what came late where other content, received after it, is known at the destination; elsewhere it is the newest."""
    other = instances.alias("other")
    newer = (
        select(deliveries.c.destination)
        .join_from(deliveries, other, other.c.id == deliveries.c.instance_id)
        .where(
            other.c.sop_instance_uid == arrival.identity.sop_instance_uid,
            other.c.id != instance_id,
            other.c.received_at > arrival.at,
            deliveries.c.destination.in_(arrival.destinations),
        )
    )
    names = set(connection.execute(newer).scalars())
    mine = and_(deliveries.c.instance_id == instance_id, deliveries.c.destination.in_(names))
    supersede(connection, delivery_ids(connection, mine), arrival.at)
    make_newest(connection, instance_id, [name for name in arrival.destinations if name not in names], arrival.at)


def _reinstate(connection: Connection, arrival: Arrival) -> None:
    """Make the content that is recorded at the arrival's own location the current one of its SOP Instance UID again."""
    mine = instances.c.location == arrival.content.location
    superseded = select(instances.c.id).where(mine, instances.c.superseded_by.is_not(None))
    instance_id = connection.execute(superseded).scalar_one_or_none()
    if instance_id is None:
        return
    same = and_(instances.c.sop_instance_uid == arrival.identity.sop_instance_uid, instances.c.superseded_by.is_(None))
    current = list(connection.execute(select(instances.c.id).where(same)).scalars())
    connection.execute(update(instances).where(instances.c.id == instance_id).values(superseded_by=None))
    for other in current:
        _point(connection, other, instance_id)


def _bytes_came(connection: Connection, instance_id: int, now: float) -> None:
    """Let go on, at every destination, what was held for want of bytes only."""
    ids = delivery_ids(connection, and_(deliveries.c.instance_id == instance_id, deliveries.c.reason == MISSING_REASON))
    transitions.move(connection, ids, DeliveryState.PENDING, now=now, only_from={DeliveryState.HELD}, due_at=now, reason=None)


def _instance_values(arrival: Arrival) -> tuple[str | int | float | None, ...]:
    """Return the values of the columns `_BROUGHT`."""
    identity, provenance, content = arrival.identity, arrival.provenance, arrival.content
    return (
        identity.sop_instance_uid,
        identity.sop_class_uid,
        identity.transfer_syntax_uid,
        identity.study_instance_uid,
        identity.series_instance_uid,
        content.location,
        content.offset,
        content.length,
        content.digest,
        provenance.source,
        provenance.calling_ae,
        provenance.called_ae,
        provenance.address,
        provenance.association,
        arrival.at,
    )


def _instance_row(instance_id: int, arrival: Arrival) -> tuple[str | int | float | None, ...]:
    return (instance_id, *_instance_values(arrival), bool(arrival.destinations))


def _delivery_rows(instance_id: int, arrival: Arrival) -> list[tuple[int, str, str, float, float, str | None, int]]:
    at, modes, priority = arrival.at, arrival.modes, int(arrival.priority)
    return [(instance_id, name, DeliveryState.PENDING.value, at, at, modes.get(name), priority) for name in arrival.destinations]


def _arrival_row(instance_id: int, arrival: Arrival, outcome: ArrivalOutcome) -> tuple[str | int | float | None, ...]:
    provenance = arrival.provenance
    return (
        instance_id,
        arrival.identity.sop_instance_uid,
        arrival.retrieval_id,
        outcome.value,
        provenance.move_originator_ae,
        provenance.move_originator_message_id,
        arrival.at,
    )
