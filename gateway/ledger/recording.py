"""Recording arrivals: the only way by which instances get into the ledger.

Inside the transaction it is decided whether an instance is new, already there, or contradicts what is there; so the same SOP
Instance UID that arrives on two associations at once is decided once. All functions belong into `Ledger.write`.

`record_many` leaves the ledger as `record`, one by one in the same order, does; an instance costs a share of a few statements then,
whether it is new or came before. Ids of instances are given here, as the highest plus one: there is one writer, and what is rolled
back leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, and_, select, update

from gateway.domain import SETTLED, DeliveryState
from gateway.ledger import transitions
from gateway.ledger.changeset import Changeset, Current
from gateway.ledger.instances import (
    SUPERSEDED,
    UNDERWAY,
    Arrival,
    ArrivalOutcome,
    BytesState,
    Recorded,
    delivery_ids,
    send_again,
)
from gateway.ledger.schema import deliveries, instances


def record(connection: Connection, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record `arrival` with its deliveries and return what it was.

    The SOP Instance UID is unknown: a new instance. Known with the same content (digest and length): no second instance; what
    its destinations had settled is delivered to them again, from the new bytes where the old ones were released or are missing.
    Known with other content: both are kept, the newer is delivered, and what the older one still owed is held with the reason.

    With ``again=False`` (``send``) the same content is only owed to destinations that never settled it. With ``late=True``
    (recovery) the arrival may be older than what was recorded after it.
    """
    changes = Changeset(connection, [arrival.identity.sop_instance_uid])
    recorded = _decide(changes, arrival, again=again, late=late)
    changes.write()
    return recorded


def record_anew(connection: Connection, arrival: Arrival) -> Recorded:
    """Record `arrival`, which is to get to its destinations whatever became of it there before, and return what it was.

    Beside what `record` does, what is held there is tried again, and a content that another one superseded is delivered in its
    place: files stay where they are, so one that was recorded before may be wanted over what came after it.
    """
    _reinstate(connection, arrival)
    recorded = record(connection, arrival)
    queued = send_again(connection, recorded.instance_id, arrival.destinations, now=arrival.at, priority=arrival.priority)
    return replace(recorded, queued=queued)


def record_many(connection: Connection, some: Sequence[Arrival]) -> list[Recorded]:
    """Record `some` arrivals as `record` does one by one, and return what each was, in their order."""
    changes = Changeset(connection, [arrival.identity.sop_instance_uid for arrival in some])
    recorded = [_decide(changes, arrival, again=True, late=False) for arrival in some]
    changes.write()
    return recorded


def _decide(changes: Changeset, arrival: Arrival, *, again: bool, late: bool) -> Recorded:
    known = changes.current(arrival.identity.sop_instance_uid)
    if known is None:
        return _as_new(changes, arrival, ArrivalOutcome.NEW)[1]
    if (known.content.digest, known.content.length) != (arrival.content.digest, arrival.content.length):
        return _as_conflict(changes, arrival, known, older=late and arrival.at < known.received_at)
    return _as_known(changes, arrival, known, again=again)


def _as_new(changes: Changeset, arrival: Arrival, outcome: ArrivalOutcome) -> tuple[Current, Recorded]:
    added = changes.add(arrival)
    changes.note(added, arrival, outcome)
    return added, Recorded(added.id, outcome, arrival, bytes_needed=True, queued=arrival.destinations)


def _as_conflict(changes: Changeset, arrival: Arrival, known: Current, *, older: bool) -> Recorded:
    added, recorded = _as_new(changes, arrival, ArrivalOutcome.CONFLICT)
    uid = arrival.identity.sop_instance_uid
    if older:
        changes.supersede(uid, added, known, arrival.at)
        return replace(recorded, queued=())
    changes.supersede(uid, known, added, arrival.at)
    return recorded


def _as_known(changes: Changeset, arrival: Arrival, known: Current, *, again: bool) -> Recorded:
    destinations, before = arrival.destinations, known.bytes_state
    owed = again or any(name not in known.owed or known.owed[name].state not in SETTLED for name in destinations)
    # A file sent in place is not ours: it may have gone since, while what came now is there.
    taken = owed and (before is not BytesState.KEPT or known.content.location.startswith("file:"))
    rests_on = known.content if owed and not taken else None
    if taken:
        changes.replace(known, arrival)
    if again:
        # Whoever sends it again wants it there, whether its bytes happen to be kept still or not; what no route takes this
        # time is kept as unrouted.
        settled = all(one.state in SETTLED for one in known.owed.values())
        if destinations or settled or before is BytesState.RELEASED:
            changes.route(known, routed=bool(destinations))
        changes.revive(known, destinations, SETTLED, arrival.at)
        changes.note(known, arrival, ArrivalOutcome.DUPLICATE)
    if before is BytesState.MISSING:
        changes.bytes_came(known, arrival.at)
    if before is BytesState.MISSING or not again:
        changes.revive(known, destinations, {DeliveryState.HELD}, arrival.at)
    if any(name not in known.owed for name in destinations):
        changes.owe(known, arrival)
        changes.route(known, routed=True)
    changes.hasten(known, destinations, int(arrival.priority))
    queued = tuple(name for name in destinations if known.owed[name].state in UNDERWAY)
    return Recorded(known.id, ArrivalOutcome.DUPLICATE, arrival, bytes_needed=taken, queued=queued, rests_on=rests_on)


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
        _supersede(connection, other, instance_id, arrival.at)


def _supersede(connection: Connection, older_id: int, newer_id: int, now: float) -> None:
    connection.execute(update(instances).where(instances.c.id == older_id).values(superseded_by=newer_id))
    ids = delivery_ids(connection, deliveries.c.instance_id == older_id)
    waiting = {DeliveryState.PENDING, DeliveryState.DEFERRED, DeliveryState.HELD}
    transitions.move(connection, ids, DeliveryState.HELD, now=now, only_from=waiting, reason=SUPERSEDED)
