"""Instances, their deliveries, and where their bytes stand. How they get here is in `gateway.ledger.received.recording`.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update

from gateway.core.domain import SETTLED, WORKING, Content, DeliveryState, InstanceIdentity, Mode, Priority, Provenance
from gateway.ledger.database import transitions
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import deliveries, instances

MISSING_REASON = "the spooled bytes are missing"
SUPERSEDED = "superseded by other content under the same SOP Instance UID"
SAME_CONTENT = "the same elements and pixels came in another encoding, which goes in its place"
CAME_WELL = "its source was asked for it again and sent it as it should be, which goes in its place"

NO_MODES: Mapping[str, Mode] = MappingProxyType({})

FRESH: dict[str, Any] = {
    "attempts": 0,
    "status": None,
    "reason": None,
    "uncertain": False,
    "lost": 0,
    "proof": None,
    "sent_as": None,
    "awaits_transcoding": False,
}
"""The columns of a delivery that is to be made once more. `was_there` stays: what we brought there ourselves is ours."""


class BytesState(StrEnum):
    """The state of an instance's bytes."""

    KEPT = "kept"
    RELEASED = "released"
    MISSING = "missing"


class ArrivalOutcome(StrEnum):
    """The kind of an arrival, seen against the instances that the ledger knew."""

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
    modes: Mapping[str, Mode] = field(default_factory=dict)
    """The transfer syntaxes that routes ask for at destinations, in place of the destinations' own wishes."""
    priority: Priority = Priority.NORMAL
    unfit: str = ""
    """The reason why its bytes cannot be what they are declared to be, in words that follow "it came", without patient data.

    A retrieval does not count such an instance as received, asks for it again in other ways, and names it in its verdict.
    """


def held_as_unfit(unfit: str | None) -> str | None:
    """Return why deliveries of an instance are held that is `unfit`, None where it is not."""
    return f"it came {unfit}" if unfit else None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record of an arrival.

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


def verified(connection: Connection, instance_id: int, destinations: Sequence[str]) -> bool:
    """Tell whether the instance is verified at each of `destinations`."""
    return _covers(connection, instance_id, destinations, deliveries.c.state == DeliveryState.VERIFIED)


def _of(instance_id: int, destinations: Sequence[str]) -> ColumnElement[bool]:
    return and_(deliveries.c.instance_id == instance_id, deliveries.c.destination.in_(destinations))


def revive(
    connection: Connection, instance_id: int, destinations: Sequence[str], states: Collection[DeliveryState], now: float
) -> None:
    """Make the instance's deliveries to `destinations` that stand in one of `states` pending again, as if never tried."""
    ids = delivery_ids(connection, _of(instance_id, destinations))
    transitions.move(connection, ids, DeliveryState.PENDING, now=now, only_from=states, due_at=now, **FRESH)


def hasten(connection: Connection, instance_id: int, destinations: Sequence[str], priority: Priority) -> None:
    """Have what waits of the instance for `destinations` go out no later than `priority` says."""
    slower = and_(_of(instance_id, destinations), deliveries.c.priority < priority, deliveries.c.state.not_in(sorted(SETTLED)))
    connection.execute(update(deliveries).where(slower).values(priority=int(priority)))


def make_newest(connection: Connection, instance_id: int, destinations: Sequence[str], now: float) -> None:
    """Have the instance be the newest of its SOP Instance UID at `destinations`: what waits there of other content is held.

    At other destinations nothing changes: what is newer is said of each destination alone.
    """
    mine = select(instances.c.sop_instance_uid).where(instances.c.id == instance_id).scalar_subquery()
    others = select(instances.c.id).where(instances.c.sop_instance_uid == mine, instances.c.id != instance_id)
    older = delivery_ids(connection, and_(deliveries.c.instance_id.in_(others), deliveries.c.destination.in_(destinations)))
    connection.execute(update(deliveries).where(_of(instance_id, destinations)).values(superseded=False))
    supersede(connection, older, now)


def supersede(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Mark deliveries as superseded by other content at their destination, and hold those that wait."""
    for chunk in chunks(ids):
        connection.execute(update(deliveries).where(deliveries.c.id.in_(chunk)).values(superseded=True))
    waiting = {DeliveryState.PENDING, DeliveryState.DEFERRED, DeliveryState.HELD}
    transitions.move(connection, ids, DeliveryState.HELD, now=now, only_from=waiting, reason=SUPERSEDED)


def drop_unfit(connection: Connection, instance_id: int, destinations: Sequence[str], now: float) -> None:
    """Drop what is held of unfit contents in favour of the instance, which is of the same study and series."""
    mine, other = instances.alias("mine"), instances.alias("other")
    alike = (
        column == other.c[column.name]
        for column in (mine.c.sop_instance_uid, mine.c.study_instance_uid, mine.c.series_instance_uid)
    )
    unfit = select(other.c.id).where(mine.c.id == instance_id, other.c.id != instance_id, other.c.unfit.is_not(None), *alike)
    held = and_(deliveries.c.instance_id.in_(unfit), deliveries.c.destination.in_(destinations), deliveries.c.reason == SUPERSEDED)
    ids = delivery_ids(connection, held)
    transitions.move(connection, ids, DeliveryState.DROPPED, now=now, only_from=[DeliveryState.HELD], reason=CAME_WELL)


def superseded_at(connection: Connection, instance_id: int, destinations: Sequence[str]) -> tuple[str, ...]:
    """Return those of `destinations`, in their order, at which other content under the same SOP Instance UID is newer."""
    marked = and_(_of(instance_id, destinations), deliveries.c.superseded)
    names = set(connection.execute(select(deliveries.c.destination).where(marked)).scalars())
    return tuple(name for name in destinations if name in names)


def in_its_place(connection: Connection, stored: StoredInstance, destinations: Sequence[str]) -> StoredInstance:
    """Return what goes to `destinations` in place of an instance that was dropped there for the same content in another encoding.

    That is the instance itself where it was not dropped so at each of them, and where what came in its place was dropped, too.
    """
    dropped = and_(deliveries.c.state == DeliveryState.DROPPED, deliveries.c.reason == SAME_CONTENT)
    mine = stored
    while (newer_id := mine.superseded_by) is not None and _covers(connection, mine.id, destinations, dropped):
        newer = get(connection, newer_id)
        if newer is None:
            return stored
        mine = newer
    there = or_(deliveries.c.state != DeliveryState.DROPPED, dropped)
    return mine if _covers(connection, mine.id, destinations, there) else stored


def _covers(connection: Connection, instance_id: int, destinations: Sequence[str], which: ColumnElement[bool]) -> bool:
    """Tell whether the instance has a delivery that meets the condition `which` at each of `destinations`."""
    met = select(deliveries.c.destination).where(_of(instance_id, destinations), which)
    return set(destinations) <= set(connection.execute(met).scalars())


def delivery_ids(connection: Connection, which: ColumnElement[bool]) -> list[int]:
    """Return the ids of the deliveries that meet the condition `which`."""
    return list(connection.execute(select(deliveries.c.id).where(which)).scalars())


def add_deliveries(
    connection: Connection,
    instance_id: int,
    destinations: Sequence[str],
    *,
    now: float,
    held: str | None = None,
    modes: Mapping[str, Mode] = NO_MODES,
    priority: Priority = Priority.NORMAL,
) -> None:
    """Queue the instance for those `destinations` that it has no delivery to yet; with `held`, hold it there for that reason.

    `modes` are what routes ask for there.
    """
    known = set(connection.execute(select(deliveries.c.destination).where(_of(instance_id, destinations))).scalars())
    new = tuple(name for name in destinations if name not in known)
    if new:
        state = DeliveryState.HELD if held else DeliveryState.PENDING
        same = {"instance_id": instance_id, "state": state, "due_at": now, "changed_at": now, "reason": held}
        same["priority"] = int(priority)
        connection.execute(insert(deliveries).inline(), [same | {"destination": name, "mode": modes.get(name)} for name in new])
        connection.execute(update(instances).where(instances.c.id == instance_id).values(routed=True))


def route_anew(
    connection: Connection, instance_id: int, destinations: Sequence[str], *, now: float, modes: Mapping[str, Mode] = NO_MODES
) -> None:
    """Queue an unrouted instance for `destinations`, also for those that settled it when it came before; what is unfit is held."""
    reason = held_as_unfit(connection.execute(select(instances.c.unfit).where(instances.c.id == instance_id)).scalar_one())
    revive(connection, instance_id, destinations, SETTLED, now)
    add_deliveries(connection, instance_id, destinations, now=now, held=reason, modes=modes)
    connection.execute(update(instances).where(instances.c.id == instance_id).values(routed=True))


def send_again(
    connection: Connection,
    instance_id: int,
    destinations: Sequence[str],
    *,
    now: float,
    modes: Mapping[str, Mode] = NO_MODES,
    priority: Priority = Priority.NORMAL,
    newest: bool = False,
) -> tuple[str, ...]:
    """Queue the instance, whose bytes are there, for `destinations` that have not verified it; return where it is underway.

    A delivery that is held or was dropped is tried again. Where other content under its SOP Instance UID is newer, it is held,
    unless it is to be the `newest` from now on; an instance that is unfit is held anyway. `modes` are what routes ask for there.
    """
    newer = () if newest else superseded_at(connection, instance_id, destinations)
    wanted = tuple(name for name in destinations if name not in newer)
    if not verified(connection, instance_id, destinations):
        mine = instances.c.id == instance_id
        unfit = held_as_unfit(connection.execute(select(instances.c.unfit).where(mine)).scalar_one())
        connection.execute(update(instances).where(mine).values(bytes_state=BytesState.KEPT))
        before = underway(connection, instance_id, wanted)
        if unfit is None:
            revive(connection, instance_id, wanted, {DeliveryState.HELD, DeliveryState.DROPPED}, now)
        add_deliveries(connection, instance_id, wanted, now=now, held=unfit, modes=modes, priority=priority)
        hasten(connection, instance_id, wanted, priority)
        begun = [name for name in underway(connection, instance_id, wanted) if name not in before]
        (make_newest if newest else _in_order)(connection, instance_id, begun, now)
    return underway(connection, instance_id, destinations)


def _in_order(connection: Connection, instance_id: int, destinations: Sequence[str], now: float) -> None:
    """Hold the instance's deliveries that begin where other content, which came later than it did, is known at the destination."""
    mine, other = instances.alias("mine"), instances.alias("other")
    later = and_(other.c.sop_instance_uid == mine.c.sop_instance_uid, other.c.id > mine.c.id)
    newer = (
        select(deliveries.c.destination)
        .join_from(deliveries, other, other.c.id == deliveries.c.instance_id)
        .join(mine, later)
        .where(mine.c.id == instance_id, deliveries.c.destination.in_(destinations), deliveries.c.state != DeliveryState.DROPPED)
    )
    superseding = set(connection.execute(newer).scalars())
    supersede(connection, delivery_ids(connection, _of(instance_id, sorted(superseding))), now)
    if begun := [name for name in destinations if name not in superseding]:
        make_newest(connection, instance_id, begun, now)


def held(connection: Connection, instance_id: int, destinations: Sequence[str]) -> str:
    """Return why the instance is held at one of `destinations`, empty where it is held at none."""
    waiting = and_(_of(instance_id, destinations), deliveries.c.state == DeliveryState.HELD)
    row = connection.execute(select(deliveries.c.reason).where(waiting).limit(1)).first()
    return "" if row is None else row.reason or "held"


def underway(connection: Connection, instance_id: int, destinations: Sequence[str]) -> tuple[str, ...]:
    """Return those of `destinations`, in their order, that the instance is neither settled nor held at."""
    moving = and_(_of(instance_id, destinations), deliveries.c.state.in_(sorted(WORKING)))
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
