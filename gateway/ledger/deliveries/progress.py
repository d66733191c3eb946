"""The progress of deliveries that a command waits for. Reading only.

A command waits for a *scope*: the instances of a pull's studies, or instances by id, at all or some destinations. Of a content
that a newer one superseded only what is still owed counts: it is held, or will be. A pull of the newer one's study is not held up
by another study that had the same SOP Instance UID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CompoundSelect, Connection, func, or_, select, true, union

from gateway.core.domain import DeliveryState as S
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import arrivals, deliveries, expected_instances, instances, retrievals

_CURRENT = instances.c.superseded_by.is_(None)
_OWED = deliveries.c.state.in_(sorted({S.PENDING, S.SENDING, S.DEFERRED, S.HELD}))


@dataclass(frozen=True, slots=True)
class StudyDelivery:
    """The number of deliveries of one study at one destination in one state, resting on one proof."""

    study_instance_uid: str
    destination: str
    state: S
    proof: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A delivery that is not verified: where it stands and why."""

    delivery_id: int
    instance_id: int
    sop_instance_uid: str
    study_instance_uid: str
    destination: str
    state: S
    status: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Scope:
    """The deliveries that a command waits for. `destinations` empty means all that the instances are routed to."""

    job_id: int | None = None
    instance_ids: tuple[int, ...] = ()
    destinations: tuple[str, ...] = ()


def count_states(connection: Connection, scope: Scope) -> list[StudyDelivery]:
    """Count the deliveries in `scope` by study, destination, state and proof."""
    keys = (instances.c.study_instance_uid, deliveries.c.destination, deliveries.c.state, deliveries.c.proof)
    sums: dict[tuple[str, str, str, str | None], int] = {}
    for condition in _conditions(scope):
        statement = (
            select(*keys, func.count())
            .join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id)
            .where(condition)
            .group_by(*keys)
        )
        for study, destination, state, proof, count in connection.execute(statement):
            key = (study, destination, state, proof)
            sums[key] = sums.get(key, 0) + count
    return [
        StudyDelivery(study, name, S(state), proof, count) for (study, name, state, proof), count in sorted(sums.items(), key=str)
    ]


def undelivered(connection: Connection, scope: Scope) -> list[Undelivered]:
    """Return the deliveries in `scope` that are not verified."""
    found: list[Undelivered] = []
    for condition in _conditions(scope):
        statement = (
            select(
                deliveries.c.id,
                instances.c.id,
                instances.c.sop_instance_uid,
                instances.c.study_instance_uid,
                deliveries.c.destination,
                deliveries.c.state,
                deliveries.c.status,
                deliveries.c.reason,
            )
            .join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id)
            .where(condition, deliveries.c.state != S.VERIFIED)
            .order_by(deliveries.c.id)
        )
        found += [
            Undelivered(key, instance, uid, study, name, S(state), status, reason)
            for key, instance, uid, study, name, state, status, reason in connection.execute(statement)
        ]
    return found


def unrouted(connection: Connection, scope: Scope) -> int:
    """Count the instances in `scope` that no route matched."""
    counts = (
        connection.execute(select(func.count()).select_from(instances).where(condition, ~instances.c.routed, _CURRENT))
        for condition in _instances(scope)
    )
    return sum(count.scalar_one() for count in counts)


def _conditions(scope: Scope) -> Iterator[ColumnElement[bool]]:
    """Yield conditions on instances and deliveries that together, without overlap, make up `scope`.

    A delivery to a destination counts unless other content is newer there and nothing of it is owed any more.
    """
    narrowed = deliveries.c.destination.in_(scope.destinations) if scope.destinations else true()
    # By job, what came is known by its UIDs only: of several contents the newest is meant.
    counts = or_(_OWED, ~deliveries.c.superseded if scope.job_id is None else _CURRENT)
    yield from (condition & narrowed & counts for condition in _instances(scope))


def _instances(scope: Scope) -> Iterator[ColumnElement[bool]]:
    """Yield conditions on instances that together, without overlap, make up `scope` but for its destinations."""
    if scope.job_id is not None:
        studies = select(retrievals.c.study_instance_uid).where(retrievals.c.job_id == scope.job_id)
        asked = or_(_CURRENT, instances.c.study_instance_uid.in_(studies))
        yield instances.c.sop_instance_uid.in_(_retrieved(scope.job_id)) & asked
    yield from (instances.c.id.in_(chunk) for chunk in chunks(scope.instance_ids))


def _retrieved(job_id: int) -> CompoundSelect[tuple[str]]:
    """Select what the job's retrievals wanted to come or what was counted to them, whenever it arrived."""
    mine = select(retrievals.c.id).where(retrievals.c.job_id == job_id)
    wanted = select(expected_instances.c.sop_instance_uid).where(
        expected_instances.c.retrieval_id.in_(mine), ~expected_instances.c.skipped
    )
    return union(wanted, select(arrivals.c.sop_instance_uid).where(arrivals.c.retrieval_id.in_(mine)))
