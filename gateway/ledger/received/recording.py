"""Recording arrivals: the only way by which instances get into the ledger.

Inside the transaction it is decided whether an instance is new, already there, or contradicts what is there; so the same SOP
Instance UID that arrives on two associations at once is decided once. All functions belong into `Ledger.write`.

`record_many` leaves the ledger as `record`, one by one in the same order, does; an instance costs a share of a few statements then,
whether it is new or came before. Where there is other content under its SOP Instance UID, it is decided alone: which content is
the newer is said of each destination. Ids of instances are given here, as the highest plus one: there is one writer, and what is
rolled back leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, and_, select, update

from gateway.core.domain import SETTLED, WORKING, DeliveryState
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.received.changeset import Changeset, Current
from gateway.ledger.received.instances import (
    Arrival,
    ArrivalOutcome,
    BytesState,
    Recorded,
    delivery_ids,
    drop_unfit,
    make_newest,
    send_again,
    supersede,
    underway,
)


def record(connection: Connection, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record `arrival` with its deliveries and return what it was.

    The SOP Instance UID is unknown: a new instance. Known with the same content (digest and length): no second instance; what
    its destinations had settled is delivered to them again, from the new bytes where the old ones were released or are missing.
    Known with other content: both are kept; where the newer one goes, what the older one still owed there is held with the reason,
    and elsewhere the older one goes on. An unfit one never takes the place of one that is not, and is held wherever it is to go;
    where its source was asked for it again and sends it well, it is dropped there.

    With ``again=False`` (``send``) the same content is only owed to destinations that have not verified it. With ``late=True``
    (recovery) the arrival may be older than what was recorded after it.
    """
    changes = Changeset(connection, [arrival.identity.sop_instance_uid])
    known = changes.current(arrival.identity.sop_instance_uid)
    if known is None:
        recorded = _as_new(changes, arrival, ArrivalOutcome.NEW)
        changes.write()
        return recorded
    if not _same_content(known, arrival):
        recorded = _as_new(changes, arrival, ArrivalOutcome.CONFLICT)
        changes.write()
        if arrival.unfit and not known.unfit:
            _point(connection, recorded.instance_id, known.id)
            return recorded
        older = late and arrival.at < known.received_at and bool(arrival.unfit) is known.unfit
        return _in_order(connection, recorded, known.id, older=older)
    # Only where there is other content can anything be newer or older.
    before = underway(connection, known.id, arrival.destinations) if known.has_older else ()
    recorded = _as_known(changes, arrival, known, again=again)
    changes.write()
    if known.has_older and (begun := [name for name in recorded.queued if name not in before]):
        make_newest(connection, known.id, begun, arrival.at)
    return recorded


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
    recorded: list[Recorded] = []
    while rest := some[len(recorded) :]:
        changes = Changeset(connection, [arrival.identity.sop_instance_uid for arrival in rest])
        for arrival in rest:
            known = changes.current(arrival.identity.sop_instance_uid)
            if known is None:
                recorded.append(_as_new(changes, arrival, ArrivalOutcome.NEW))
            elif _same_content(known, arrival) and not known.has_older:
                recorded.append(_as_known(changes, arrival, known, again=True))
            else:
                break
        changes.write()
        if len(recorded) < len(some):
            # An arrival that meets other content is decided against everything before it.
            recorded.append(record(connection, some[len(recorded)]))
    return recorded


def _same_content(known: Current, arrival: Arrival) -> bool:
    """Tell whether the same bytes came under a declaration that fits them as well: a wrong one makes them another content."""
    mine, other = known.content, arrival.content
    return (mine.digest, mine.length, known.unfit) == (other.digest, other.length, bool(arrival.unfit))


def _as_new(changes: Changeset, arrival: Arrival, outcome: ArrivalOutcome) -> Recorded:
    added = changes.add(arrival)
    changes.note(added, arrival, outcome)
    queued = () if arrival.unfit else arrival.destinations
    return Recorded(added.id, outcome, arrival, bytes_needed=True, queued=queued)


def _in_order(connection: Connection, recorded: Recorded, other_id: int, *, older: bool) -> Recorded:
    """Say which of two contents is the newer, and hold what is older where the newer one goes."""
    arrival, mine = recorded.arrival, recorded.instance_id
    if older:
        _point(connection, mine, other_id)
        _stop_older(connection, arrival, mine)
        return replace(recorded, queued=underway(connection, mine, arrival.destinations))
    _point(connection, other_id, mine)
    make_newest(connection, mine, arrival.destinations, arrival.at)
    if arrival.retrieval_id is not None and not arrival.unfit:
        drop_unfit(connection, mine, arrival.destinations, arrival.at)
    return recorded


def _as_known(changes: Changeset, arrival: Arrival, known: Current, *, again: bool) -> Recorded:
    destinations, before = arrival.destinations, known.bytes_state
    verified = {name for name, one in known.owed.items() if one.state is DeliveryState.VERIFIED}
    owed = again or not verified.issuperset(destinations)
    # A file sent in place is not ours: it may have gone since, while what came now is there.
    taken = owed and (before is not BytesState.KEPT or known.content.location.startswith("file:"))
    rests_on = known.content if owed and not taken else None
    if taken:
        changes.replace(known, arrival)
    if again:
        # A peer that sends it again wants it there, whether its bytes happen to be kept still or not; one that no route takes this
        # time is kept as unrouted.
        settled = all(one.state in SETTLED for one in known.owed.values())
        if destinations or settled or before is BytesState.RELEASED:
            changes.route(known, routed=bool(destinations))
        if not arrival.unfit:
            changes.revive(known, destinations, SETTLED, arrival.at)
        changes.note(known, arrival, ArrivalOutcome.DUPLICATE)
    if before is BytesState.MISSING:
        changes.bytes_came(known, arrival.at)
    if (before is BytesState.MISSING or not again) and not arrival.unfit:
        # A file that is sent again after it was dropped is wanted after all.
        tried_again = {DeliveryState.HELD} if again else {DeliveryState.HELD, DeliveryState.DROPPED}
        changes.revive(known, destinations, tried_again, arrival.at)
    if any(name not in known.owed for name in destinations):
        changes.owe(known, arrival)
        changes.route(known, routed=True)
    changes.hasten(known, destinations, int(arrival.priority))
    queued = tuple(name for name in destinations if known.owed[name].state in WORKING)
    return Recorded(known.id, ArrivalOutcome.DUPLICATE, arrival, bytes_needed=taken, queued=queued, rests_on=rests_on)


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
