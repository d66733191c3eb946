"""A batch of arrivals in memory: what the ledger knows of their SOP Instance UIDs, and what is to be changed.

`Changeset` reads with two statements all that a batch needs, is changed by `recording` arrival by arrival, and is
written with one ``executemany`` for each kind of change. So an instance that comes again costs no more than a new one: SQLAlchemy
takes ten times as long to build and carry out a statement as SQLite takes for the row. To be made, changed and written inside one
transaction of the ledger's only writer, so that nothing changes in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, bindparam, exists, func, select, update

from gateway.core.domain import SETTLED, Content, DeliveryState
from gateway.ledger.database.ownership import owner_of
from gateway.ledger.database.rows import RowInsert, RowUpdate, chunks
from gateway.ledger.database.schema import arrivals, deliveries, instances
from gateway.ledger.database.transitions import Move
from gateway.ledger.received.instances import FRESH, MISSING_REASON, Arrival, ArrivalOutcome, BytesState, held_as_unfit

_OLDER = instances.alias("older")

_CURRENT: Select[Any] = (
    select(
        instances.c.id,
        instances.c.sop_instance_uid,
        instances.c.digest,
        instances.c.content_length,
        instances.c.content_offset,
        instances.c.location,
        instances.c.bytes_state,
        instances.c.routed,
        instances.c.received_at,
        instances.c.unfit,
        exists().where(_OLDER.c.superseded_by == instances.c.id).label("has_older"),
    )
    .where(instances.c.sop_instance_uid.in_(bindparam("uids", expanding=True)), instances.c.superseded_by.is_(None))
    .order_by(instances.c.id)
)
_OWED: Select[Any] = (
    select(
        deliveries.c.id,
        deliveries.c.instance_id,
        deliveries.c.destination,
        deliveries.c.state,
        deliveries.c.priority,
        deliveries.c.reason,
    )
    .where(deliveries.c.instance_id.in_(bindparam("ids", expanding=True)))
    .order_by(deliveries.c.id)
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
    instances.c.unfit,
    instances.c.node,
)
"""The columns that come with an instance's bytes, new or in place of others."""

_INSERT_INSTANCES = RowInsert(instances.c.id, *_BROUGHT, instances.c.routed)
_INSERT_DELIVERIES = RowInsert(
    deliveries.c.instance_id,
    deliveries.c.destination,
    deliveries.c.state,
    deliveries.c.due_at,
    deliveries.c.changed_at,
    deliveries.c.mode,
    deliveries.c.priority,
    deliveries.c.reason,
)
_INSERT_ARRIVALS = RowInsert(
    arrivals.c.instance_id,
    arrivals.c.sop_instance_uid,
    arrivals.c.retrieval_id,
    arrivals.c.outcome,
    arrivals.c.move_originator_ae,
    arrivals.c.move_originator_message_id,
    arrivals.c.at,
)

_THIS = instances.c.id == bindparam("this")
_REPLACE = RowUpdate(
    update(instances)
    .where(_THIS)
    .values({column: bindparam(f"new_{column.name}") for column in _BROUGHT} | {instances.c.bytes_state: BytesState.KEPT.value}),
    "this",
    *(f"new_{column.name}" for column in _BROUGHT),
)
_ROUTE = RowUpdate(update(instances).where(_THIS).values(routed=bindparam("is_routed")), "this", "is_routed")
_HASTEN = RowUpdate(
    update(deliveries).where(deliveries.c.id == bindparam("this")).values(priority=bindparam("new_priority")),
    "this",
    "new_priority",
)
_BYTES_CAME = Move(DeliveryState.PENDING, only_from={DeliveryState.HELD}, due=True, reason=None)
_REVIVE = Move(DeliveryState.PENDING, only_from=SETTLED | {DeliveryState.HELD}, due=True, **FRESH)


@dataclass(slots=True)
class Owed:
    """A delivery, as it stands inside the transaction. `id` is None until it is written; `mode` and `at` are told only then."""

    id: int | None
    instance_id: int
    destination: str
    state: DeliveryState
    priority: int
    reason: str | None
    mode: str | None = None
    due_at: float = 0.0
    changed_at: float = 0.0


@dataclass(slots=True)
class Current:
    """The instance that is current under its SOP Instance UID, as it stands inside the transaction.

    `has_older` tells whether there is other content that it came after.
    `brought` is the arrival that it is to be written from, new or in place of what it was.
    """

    id: int
    content: Content
    bytes_state: BytesState
    routed: bool
    received_at: float
    unfit: bool
    has_older: bool = False
    owed: dict[str, Owed] = field(default_factory=dict)
    brought: Arrival | None = None


class Changeset:
    """The current records under the SOP Instance UIDs of a batch, and every change that is gathered until `write`."""

    def __init__(self, connection: Connection, uids: Collection[str]) -> None:
        self._connection = connection
        self._current = dict(_read(connection, sorted(set(uids))))
        self._next_id = 0
        self._new: list[Current] = []
        self._replaced: list[Current] = []
        self._routed: dict[int, bool] = {}
        self._added: list[Owed] = []
        self._came: list[tuple[int, float]] = []
        self._revived: list[tuple[int, float]] = []
        self._hastened: dict[int, int] = {}
        self._arrivals: list[tuple[Any, ...]] = []

    def current(self, sop_instance_uid: str) -> Current | None:
        """Return the instance that is current under the UID."""
        return self._current.get(sop_instance_uid)

    def add(self, arrival: Arrival) -> Current:
        """Add a new instance, with its deliveries, and make it the current one unless there is one already."""
        self._next_id = self._next_id or (self._connection.execute(_HIGHEST_ID).scalar_one() or 0) + 1
        routed = bool(arrival.destinations)
        added = Current(self._next_id, arrival.content, BytesState.KEPT, routed, arrival.at, bool(arrival.unfit), brought=arrival)
        self._next_id += 1
        self._new.append(added)
        self.owe(added, arrival)
        self._current.setdefault(arrival.identity.sop_instance_uid, added)
        return added

    def replace(self, known: Current, arrival: Arrival) -> None:
        """Have the bytes that came stand in place of those that the instance had."""
        if known.brought is None:
            self._replaced.append(known)
        known.brought, known.content, known.received_at = arrival, arrival.content, arrival.at
        known.unfit = bool(arrival.unfit)
        known.bytes_state = BytesState.KEPT

    def route(self, known: Current, *, routed: bool) -> None:
        """Say whether any route or command took the instance."""
        if known.routed is not routed:
            known.routed = self._routed[known.id] = routed

    def note(self, known: Current, arrival: Arrival, outcome: ArrivalOutcome) -> None:
        """Keep that `arrival` brought the instance."""
        provenance = arrival.provenance
        self._arrivals.append(
            (
                known.id,
                arrival.identity.sop_instance_uid,
                arrival.retrieval_id,
                outcome.value,
                provenance.move_originator_ae,
                provenance.move_originator_message_id,
                arrival.at,
            )
        )

    def owe(self, known: Current, arrival: Arrival) -> None:
        """Queue the instance for those of the arrival's destinations that it has no delivery to yet; what is unfit is held."""
        at, modes, priority, reason = arrival.at, arrival.modes, int(arrival.priority), held_as_unfit(arrival.unfit)
        state = DeliveryState.HELD if reason else DeliveryState.PENDING
        for name in arrival.destinations:
            if name not in known.owed:
                added = Owed(None, known.id, name, state, priority, reason, modes.get(name), at, at)
                known.owed[name] = added
                self._added.append(added)

    def revive(self, known: Current, destinations: Iterable[str], states: Collection[DeliveryState], now: float) -> None:
        """Make the deliveries to `destinations` that stand in one of `states` pending again, as if never tried."""
        for owed in _at(known, destinations):
            if owed.state in states:
                owed.state, owed.reason = DeliveryState.PENDING, None
                if owed.id is None:
                    owed.due_at = owed.changed_at = now
                else:
                    self._revived.append((owed.id, now))

    def bytes_came(self, known: Current, now: float) -> None:
        """Let go on, at every destination, what was held for want of bytes only."""
        for owed in known.owed.values():
            if owed.id is not None and owed.state is DeliveryState.HELD and owed.reason == MISSING_REASON:
                owed.state, owed.reason = DeliveryState.PENDING, None
                self._came.append((owed.id, now))

    def hasten(self, known: Current, destinations: Iterable[str], priority: int) -> None:
        """Have what waits of the instance for `destinations` go out no later than `priority` says."""
        for owed in _at(known, destinations):
            if owed.priority < priority and owed.state not in SETTLED:
                owed.priority = priority
                if owed.id is not None:
                    self._hastened[owed.id] = priority

    def write(self) -> None:
        """Write every change, in the order in which one needs the other."""
        connection, node = self._connection, owner_of(self._connection).node
        _INSERT_INSTANCES(connection, [(one.id, *_brought(one), node, one.routed) for one in self._new])
        _REPLACE(connection, [(one.id, *_brought(one), node) for one in self._replaced])
        _ROUTE(connection, list(self._routed.items()))
        _INSERT_DELIVERIES(connection, [_row(owed) for owed in self._added])
        _BYTES_CAME(connection, self._came)
        _REVIVE(connection, self._revived)
        _HASTEN(connection, list(self._hastened.items()))
        _INSERT_ARRIVALS(connection, self._arrivals)


def _read(connection: Connection, uids: Sequence[str]) -> Iterator[tuple[str, Current]]:
    for chunk in chunks(uids):
        rows = connection.execute(_CURRENT, {"uids": chunk}).all()
        if not rows:
            continue
        found = {
            row.id: Current(
                row.id,
                Content(row.location, row.content_offset, row.content_length, row.digest),
                BytesState(row.bytes_state),
                row.routed,
                row.received_at,
                bool(row.unfit),
                bool(row.has_older),
            )
            for row in rows
        }
        for key, instance_id, destination, state, priority, reason in connection.execute(_OWED, {"ids": list(found)}):
            owed = Owed(key, instance_id, destination, DeliveryState(state), priority, reason)
            found[instance_id].owed[destination] = owed
        yield from ((row.sop_instance_uid, found[row.id]) for row in rows)


def _at(known: Current, destinations: Iterable[str]) -> Iterator[Owed]:
    return (known.owed[name] for name in destinations if name in known.owed)


def _brought(one: Current) -> tuple[str | int | float | None, ...]:
    """Return the values of the columns `_BROUGHT`, but for the node."""
    arrival = one.brought
    assert arrival is not None
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
        arrival.unfit or None,
    )


def _row(owed: Owed) -> tuple[Any, ...]:
    return (
        owed.instance_id,
        owed.destination,
        owed.state.value,
        owed.due_at,
        owed.changed_at,
        owed.mode,
        owed.priority,
        owed.reason,
    )
