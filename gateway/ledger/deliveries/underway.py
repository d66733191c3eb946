"""The instances of a study that are on their way to a destination, or need not come for it. Reading only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select

from gateway.core.domain import WORKING, DeliveryState
from gateway.ledger.database.schema import arrivals, deliveries, instances, jobs, retrievals

BY_HAND = "send"
"""The association that stands with instances that `gateway send` took in: no route was asked about them."""


@dataclass(frozen=True, slots=True)
class Underway:
    """The state of a study at one destination as far as the gateway itself had to do with it.

    `working` says that deliveries are still worked on, so that what the destination holds is about to change. `excused` are SOP
    Instance UIDs that need not come again though it lacks them: they are held for a person, or were dropped by one.
    """

    working: bool
    excused: frozenset[str]


def underway(connection: Connection, study_instance_uid: str, destination: str, *, by_routes: bool) -> Underway:
    """Return how a study stands at `destination`.

    With `by_routes` what came and was routed elsewhere is excused too: the routes decide what goes there, and they did.
    """
    states = connection.execute(
        select(instances.c.sop_instance_uid, deliveries.c.state)
        .join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id)
        .where(_current(study_instance_uid), deliveries.c.destination == destination)
    ).all()
    undone = {DeliveryState.HELD, DeliveryState.DROPPED}
    excused = {uid for uid, state in states if state in undone}
    if by_routes:
        excused |= _elsewhere(connection, study_instance_uid, destination)
    return Underway(any(state in WORKING for _, state in states), frozenset(excused))


def _elsewhere(connection: Connection, study_instance_uid: str, destination: str) -> set[str]:
    """Return the instances that routes were asked about and that have no delivery to `destination`."""
    there = exists().where(deliveries.c.instance_id == instances.c.id, deliveries.c.destination == destination)
    unsolicited = and_(arrivals.c.retrieval_id.is_(None), instances.c.association != BY_HAND)
    came = (
        select(instances.c.sop_instance_uid)
        .join_from(instances, arrivals, arrivals.c.instance_id == instances.c.id)
        .outerjoin(retrievals, retrievals.c.id == arrivals.c.retrieval_id)
        .outerjoin(jobs, jobs.c.id == retrievals.c.job_id)
        .where(_current(study_instance_uid), ~there)
        .where(or_(unsolicited, and_(arrivals.c.retrieval_id.is_not(None), jobs.c.destinations.is_(None))))
    )
    return set(connection.execute(came).scalars())


def _current(study_instance_uid: str) -> ColumnElement[bool]:
    return and_(
        instances.c.study_instance_uid == study_instance_uid,
        instances.c.superseded_by.is_(None),
        instances.c.bytes_state != "missing",
    )
