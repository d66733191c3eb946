"""The deliveries as a person sees them and acts on them: the queries behind `gateway queue`.

Every change goes through `gateway.ledger.database.transitions.move`, so a delivery that meanwhile went on by itself is left alone
and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, not_, or_, select, update

from gateway.core.domain import Action
from gateway.core.domain import DeliveryState as S
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import deliveries, instances
from gateway.ledger.database.transitions import move
from gateway.ledger.deliveries.overview import UNSETTLED
from gateway.ledger.received.instances import BytesState, make_newest

HELD_BY_HAND = "held by hand"

_KEPT = or_(instances.c.bytes_state != "released", instances.c.location.startswith("file:"))
"""Bytes that are still there: missing ones may be back, and a file sent in place was never ours to remove. Trying shows it."""

_ANEW: dict[str, Any] = {
    "attempts": 0,
    "lost": 0,
    "reason": None,
    "proof": None,
    "sent_as": None,
    "awaits_transcoding": False,
}


STARTS: dict[Action, tuple[S, ...]] = {
    Action.RETRY: (S.HELD, S.DEFERRED, S.DROPPED),
    Action.HOLD: (S.PENDING, S.DEFERRED),
    Action.RELEASE: (S.HELD,),
    Action.DROP: (S.PENDING, S.DEFERRED, S.HELD),
}
"""The states in which an action takes hold; a dropped delivery is retried only when it is named (by id or state)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The deliveries that are meant: all conditions given must hold; none given means every one."""

    ids: tuple[int, ...] = ()
    destinations: tuple[str, ...] = ()
    states: tuple[S, ...] = ()
    studies: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """True when no condition narrows it."""
        return not (self.ids or self.destinations or self.states or self.studies)


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery as `queue list` and `queue show` tell it."""

    id: int
    destination: str
    state: str
    attempts: int
    due_at: float
    status: int | None
    reason: str | None
    uncertain: bool
    lost: int
    proof: str | None
    changed_at: float
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sent_as: str | None
    awaits_transcoding: bool
    series_instance_uid: str
    study_instance_uid: str
    size_bytes: int
    source: str | None
    calling_ae: str
    received_at: float
    bytes_state: str
    superseded: bool
    was_there: bool | None
    location: str


@dataclass(frozen=True, slots=True)
class Unmoved:
    """Selected deliveries that an action leaves as they are, and why; `ids` are some of them."""

    why: str
    count: int
    ids: tuple[int, ...]


def _conditions(selection: Selection, states: Sequence[S]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [deliveries.c.state.in_(states)] if states else []
    if selection.ids:
        conditions.append(deliveries.c.id.in_(selection.ids))
    if selection.destinations:
        conditions.append(deliveries.c.destination.in_(selection.destinations))
    if selection.studies:
        conditions.append(instances.c.study_instance_uid.in_(selection.studies))
    return conditions


def _entries() -> Select[Any]:
    of, what = deliveries.c, instances.c
    return select(
        of.id,
        of.destination,
        of.state,
        of.attempts,
        of.due_at,
        of.status,
        of.reason,
        of.uncertain,
        of.lost,
        of.proof,
        of.changed_at,
        what.sop_instance_uid,
        what.sop_class_uid,
        what.transfer_syntax_uid,
        of.sent_as,
        of.awaits_transcoding,
        what.series_instance_uid,
        what.study_instance_uid,
        what.content_length,
        what.source,
        what.calling_ae,
        what.received_at,
        what.bytes_state,
        of.superseded,
        of.was_there,
        what.location,
    ).join_from(deliveries, instances, what.id == of.instance_id)


def entries(connection: Connection, selection: Selection, *, limit: int = 100, offset: int = 0) -> list[Entry]:
    """Return the selected deliveries, oldest first; unsettled ones unless the selection names states or ids."""
    states = selection.states or (() if selection.ids else UNSETTLED)
    statement = _entries().where(*_conditions(selection, states)).order_by(deliveries.c.id).limit(limit).offset(offset)
    return [Entry(*row) for row in connection.execute(statement)]


def knows(connection: Connection, destination: str) -> bool:
    """Tell whether there is any delivery to `destination`, which may be configured no more."""
    return connection.execute(select(deliveries.c.id).where(deliveries.c.destination == destination).limit(1)).first() is not None


def count(connection: Connection, selection: Selection) -> int:
    """Count what `entries` would return without a limit."""
    states = selection.states or (() if selection.ids else UNSETTLED)
    statement = (
        select(func.count())
        .select_from(deliveries.join(instances, instances.c.id == deliveries.c.instance_id))
        .where(*_conditions(selection, states))
    )
    return connection.execute(statement).scalar_one()


def instance_ids(connection: Connection, selection: Selection, *, after: int = 0, limit: int = 500) -> list[int]:
    """Return the ids above `after` of the selected deliveries' instances, in order.

    A selection that narrows nothing means all whose bytes lie in the spool and are owed, also those without a delivery.
    """
    conditions = [instances.c.id > after]
    if selection.is_everything:
        conditions += [instances.c.bytes_state != BytesState.RELEASED, ~instances.c.location.startswith("file:")]
    if selection.studies:
        conditions.append(instances.c.study_instance_uid.in_(selection.studies))
    if selection.ids or selection.destinations or selection.states:
        wanted = _conditions(replace(selection, studies=()), selection.states)
        conditions.append(exists().where(deliveries.c.instance_id == instances.c.id, *wanted))
    statement = select(instances.c.id).where(*conditions).order_by(instances.c.id).limit(limit)
    return list(connection.execute(statement).scalars())


def startable(selection: Selection, action: Action) -> tuple[S, ...]:
    """Return the states from which `action` takes what is selected; pure.

    Dropped deliveries come back only when they are named by id or by state, never by a broad filter.
    """
    starts = STARTS[action]
    if selection.states:
        return tuple(state for state in starts if state in selection.states)
    return starts if selection.ids else tuple(state for state in starts if state is not S.DROPPED)


def matching(connection: Connection, selection: Selection, action: Action) -> list[int]:
    """Return the ids of the selected deliveries that `action` would change."""
    if not startable(selection, action):
        return []
    statement = (
        select(deliveries.c.id)
        .join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
        .where(*_conditions(selection, ()), *_taken(selection, action))
    )
    return list(connection.execute(statement.order_by(deliveries.c.id)).scalars())


def _taken(selection: Selection, action: Action) -> list[ColumnElement[bool]]:
    """Return the conditions under which `action` changes what is selected."""
    conditions: list[ColumnElement[bool]] = [deliveries.c.state.in_(startable(selection, action))]
    if action in {Action.RETRY, Action.RELEASE}:
        conditions.append(_KEPT)
        if not selection.ids:
            conditions.append(~deliveries.c.superseded)
    return conditions


def parts(connection: Connection, selection: Selection, action: Action, *, size: int = 1000) -> list[Selection]:
    """Return what `action` would change as selections of at most `size` deliveries, so that no change keeps others waiting."""
    ids = matching(connection, selection, action)
    states = startable(selection, action)
    return [Selection(ids=tuple(ids[start : start + size]), states=states) for start in range(0, len(ids), size)]


def act(connection: Connection, selection: Selection, action: Action, *, now: float) -> int:
    """Do `action` with the selected deliveries and return how many changed; runs in a ledger write.

    A delivery that is retried or let go on, although other content is newer at its destination, is the newest there from now on.
    """
    ids = matching(connection, selection, action)
    starts = startable(selection, action)
    if not ids:
        return 0
    if action is Action.HOLD:
        return move(connection, ids, S.HELD, now=now, only_from=starts, reason=HELD_BY_HAND)
    if action is Action.DROP:
        return move(connection, ids, S.DROPPED, now=now, only_from=starts, reason="dropped by hand")
    anew = _ANEW if action is Action.RETRY else {}
    changed = move(connection, ids, S.PENDING, now=now, only_from=starts, due_at=now, **anew)
    for chunk in chunks(ids):
        of_these = select(deliveries.c.instance_id).where(deliveries.c.id.in_(chunk), deliveries.c.state == S.PENDING)
        kept = update(instances).where(instances.c.id.in_(of_these), instances.c.bytes_state == BytesState.RELEASED)
        connection.execute(kept.values(bytes_state=BytesState.KEPT))
        wanted = select(deliveries.c.instance_id, deliveries.c.destination)
        for row in connection.execute(wanted.where(deliveries.c.id.in_(chunk), deliveries.c.superseded)).all():
            make_newest(connection, row.instance_id, [row.destination], now)
    return changed


def unmoved(connection: Connection, selection: Selection, action: Action) -> list[Unmoved]:
    """Return, by reason, the selected deliveries that `action` would leave as they are; those that are named but unknown first.

    Of a selection that names neither numbers nor states, only what is not settled is of interest.
    """
    of, what = deliveries.c, instances.c
    columns = (of.state, of.superseded, what.bytes_state, what.location.startswith("file:").label("in_place"))
    chosen = _conditions(selection, selection.states or (() if selection.ids else UNSETTLED))
    left = not_(and_(*_taken(selection, action)))
    grouped = (of.id,) if selection.ids else ()
    statement = (
        select(*columns, func.count().label("number"), func.min(of.id).label("first"))
        .join_from(deliveries, instances, what.id == of.instance_id)
        .where(*chosen, left)
        .group_by(*columns, *grouped)
    )
    reasons: dict[str, Unmoved] = {}
    if selection.ids:
        found = select(of.id).join_from(deliveries, instances, what.id == of.instance_id).where(*chosen)
        unknown = sorted(set(selection.ids) - set(connection.execute(found).scalars()))
        narrowed = selection.destinations or selection.states or selection.studies
        why = "no such delivery" + (" that also meets the other conditions" if narrowed else "")
        if unknown:
            reasons[why] = Unmoved(why, len(unknown), tuple(unknown[:SHOWN_IDS]))
    for row in connection.execute(statement):
        why = _why_not(row, action)
        so_far = reasons.get(why, Unmoved(why, 0, ()))
        ids = (*so_far.ids, row.first)[:SHOWN_IDS]
        reasons[why] = Unmoved(why, so_far.count + row.number, ids)
    return list(reasons.values())


SHOWN_IDS = 20
"""The number of ids of deliveries that are told with a reason."""


def _why_not(row: Any, action: Action) -> str:
    """Say why a delivery is not changed. Pure."""
    state, again = S(row.state), action in {Action.RETRY, Action.RELEASE}
    if again and row.bytes_state == BytesState.RELEASED and not row.in_place and state in STARTS[action]:
        return "its bytes are gone, nobody was owed them any more: send the instance to the gateway again"
    if again and row.superseded and state in STARTS[action]:
        return "other content under its SOP Instance UID is newer there: name it by its number to send it all the same"
    if state is S.DROPPED:
        named = ": name it by its number or by --state dropped to have it back"
        return "it was dropped" + (named if action is Action.RETRY else "")
    return {
        S.VERIFIED: "it is verified",
        S.DELIVERED: "it is delivered and waits for its proof",
        S.SENDING: "it is being sent",
        S.PENDING: "it waits for its turn" + (" already" if again else ""),
        S.DEFERRED: "it waits for its next try" + (": `gateway queue retry` tries it now" if action is Action.RELEASE else ""),
        S.HELD: "it is held already",
    }[state]
