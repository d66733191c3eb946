"""Instances of a study that are on their way to a destination, or need not come for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from gateway.core.domain import DeliveryState, InstanceIdentity
from gateway.ledger.database import transitions
from gateway.ledger.database.schema import arrivals, instances
from gateway.ledger.deliveries.underway import Underway, underway
from gateway.ledger.jobs import retrievals
from tests.support.instances import Store, store

S = DeliveryState
STUDY = "1.2.3"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "state") as opened:
        yield opened


def add(kept: Store, number: int, *to: str, states: tuple[DeliveryState, ...] = (), data: bytes | None = None) -> str:
    """Record an instance of the study whose deliveries went through `states`; returns its UID."""
    uid = f"{STUDY}.1.{number}"
    identity = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.1", STUDY, f"{STUDY}.1")
    instance = kept.add(identity, data or uid.encode(), *to)
    ids = [row.id for row in kept.rows() if row.instance_id == instance]
    for new in states:
        kept.ledger.write(partial(transitions.move, delivery_ids=ids, new=new, now=time.time()))
    return uid


def stands(kept: Store, destination: str, *, by_routes: bool = False) -> Underway:
    with kept.ledger.read() as connection:
        return underway(connection, STUDY, destination, by_routes=by_routes)


@pytest.mark.parametrize(
    ("states", "working"),
    [
        ((), True),
        ((S.SENDING,), True),
        ((S.SENDING, S.DEFERRED), True),
        ((S.SENDING, S.DELIVERED), True),
        ((S.SENDING, S.VERIFIED), False),
        ((S.HELD,), False),
        ((S.HELD, S.DROPPED), False),
    ],
)
def test_what_is_worked_on_is_under_way(kept: Store, states: tuple[DeliveryState, ...], working: bool) -> None:
    add(kept, 1, "a", states=states)
    assert stands(kept, "a").working is working
    assert stands(kept, "b") == Underway(working=False, excused=frozenset())


def test_what_is_held_or_dropped_is_excused_at_that_destination(kept: Store) -> None:
    held = add(kept, 1, "a", states=(S.HELD,))
    dropped = add(kept, 2, "a", states=(S.HELD, S.DROPPED))
    add(kept, 3, "a", states=(S.SENDING, S.VERIFIED))
    assert stands(kept, "a").excused == {held, dropped}


def test_where_routes_decide_what_they_led_elsewhere_is_excused(kept: Store) -> None:
    elsewhere, nowhere = add(kept, 1, "a", states=(S.SENDING, S.VERIFIED)), add(kept, 2)
    assert stands(kept, "b").excused == frozenset()
    assert stands(kept, "b", by_routes=True).excused == {elsewhere, nowhere}
    assert stands(kept, "a", by_routes=True).excused == {nowhere}


def test_what_no_route_was_asked_about_is_not_excused_by_routes(kept: Store) -> None:
    """Instances that were sent by hand, or came for a job that names their destinations."""
    sent, directed, routed = (add(kept, number, "a", states=(S.SENDING, S.VERIFIED)) for number in (1, 2, 3))

    def came(connection: Connection) -> None:
        connection.execute(update(instances).where(instances.c.sop_instance_uid == sent).values(association="send"))
        for uid, destinations in ((directed, ("a",)), (routed, ())):
            job = retrievals.open_job(connection, "pull", uid, "{}", destinations=destinations, now=1.0)
            row = retrievals.open_retrieval(connection, job.id, "archive", STUDY, now=1.0)
            connection.execute(update(arrivals).where(arrivals.c.sop_instance_uid == uid).values(retrieval_id=row.id))

    kept.ledger.write(came)
    assert stands(kept, "b", by_routes=True).excused == {routed}


def test_of_a_content_that_a_newer_one_superseded_nothing_counts(kept: Store) -> None:
    add(kept, 1, "a", states=(S.HELD,))
    add(kept, 1, "a", states=(S.SENDING, S.VERIFIED), data=b"other content")
    assert stands(kept, "a") == Underway(working=False, excused=frozenset())


def test_what_is_missing_here_has_to_come_again(kept: Store) -> None:
    uid = add(kept, 1, "a", states=(S.HELD,))
    change = update(instances).where(instances.c.sop_instance_uid == uid).values(bytes_state="missing")
    kept.ledger.write(lambda connection: connection.execute(change))
    assert stands(kept, "a").excused == frozenset()
