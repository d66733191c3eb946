"""Arrivals are recorded the same, however they are batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, select, update

from gateway.core.domain import Content, DeliveryState, InstanceIdentity, Provenance
from gateway.ledger.database import transitions
from gateway.ledger.database.migrations import migrate
from gateway.ledger.database.schema import arrivals, deliveries, instances
from gateway.ledger.received.instances import MISSING_REASON, Arrival, ArrivalOutcome, Recorded
from gateway.ledger.received.recording import record, record_many

PROVENANCE = Provenance("PACS", "GATEWAY", "127.0.0.1", "a-1", "archive", "GATEWAY", 7)
ROUTES = (("a",), ("a", "b"), ())

# The SOP Instance UID, the content, and the route of each arrival; few of each, so that they meet.
some_arrivals = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.sampled_from(ROUTES)), max_size=12)


def made(drawn: Sequence[tuple[int, int, tuple[str, ...]]]) -> list[Arrival]:
    return [
        Arrival(
            InstanceIdentity("1.2.840", f"1.2.{uid}", "1.2.840.10008.1.2.1", "1.2", "1.2.9"),
            PROVENANCE,
            Content(f"spool:{number:04}", 10, 100, f"{content:032}"),
            route,
            at=float(number),
        )
        for number, (uid, content, route) in enumerate(drawn, 1)
    ]


def tables(batches: Sequence[Sequence[Arrival]], before: Sequence[Arrival], *, one_by_one: bool) -> tuple[object, list[Recorded]]:
    """Return every row after `before`, whose bytes and deliveries stand in many states, and the `batches`; and what was told."""
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    told: list[Recorded] = []
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            migrate(connection)
            for arrival in before:
                record(connection, arrival)
            _mixed(connection)
            for batch in batches:
                told += [record(connection, arrival) for arrival in batch] if one_by_one else record_many(connection, batch)
            rows = [connection.execute(select(table).order_by(table.c.id)).all() for table in (instances, deliveries, arrivals)]
            return rows, told
    finally:
        engine.dispose()


def _mixed(connection: Connection) -> None:
    """Leave some of what is there delivered, some of its bytes released, some missing."""
    ids = list(connection.execute(select(deliveries.c.id).where(deliveries.c.id % 2 == 0)).scalars())
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.VERIFIED):
        transitions.move(connection, ids, state, now=50.0)
    for remainder, state in enumerate(("released", "missing")):
        connection.execute(update(instances).where(instances.c.id % 3 == remainder).values(bytes_state=state))


@settings(max_examples=150)
@given(before=some_arrivals, then=some_arrivals, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_batches_leave_the_ledger_as_one_by_one_does(
    before: list[tuple[int, int, tuple[str, ...]]], then: list[tuple[int, int, tuple[str, ...]]], cuts: list[int]
) -> None:
    every = made([*before, *then])
    earlier, later = every[: len(before)], every[len(before) :]
    ends = [0, *sorted(min(cut, len(later)) for cut in cuts), len(later)]
    batches = [later[start:end] for start, end in pairwise(ends)]
    assert tables(batches, earlier, one_by_one=False) == tables(batches, earlier, one_by_one=True)


def test_an_id_that_was_rolled_back_is_given_again() -> None:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    numbers = count(1)

    def three(connection: Connection) -> list[int]:
        some = made([(next(numbers), 1, ("a",)) for _ in range(3)])
        placed = [Arrival(one.identity, one.provenance, Content(f"spool:{next(numbers)}", 1, 1, "0"), ("a",), 1.0) for one in some]
        return [recorded.instance_id for recorded in record_many(connection, placed)]

    with engine.connect() as connection:
        migrate(connection)
        assert three(connection) == [1, 2, 3]
        connection.exec_driver_sql("SAVEPOINT undone")
        assert three(connection) == [4, 5, 6]
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT undone")
        assert three(connection) == [4, 5, 6]
    engine.dispose()


@pytest.mark.parametrize("unfit_first", [True, False])
def test_unfit_content_never_supersedes_the_same_bytes_well_declared(unfit_first: bool) -> None:
    (fit,) = made([(1, 1, ("a",))])
    unfit = replace(fit, content=replace(fit.content, location="spool:0002"), unfit="with JPEG in it", at=2.0)
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    with engine.connect() as connection:
        migrate(connection)
        first, second = (record(connection, one) for one in ((unfit, fit) if unfit_first else (fit, unfit)))
        current = select(instances.c.id, instances.c.unfit).where(instances.c.superseded_by.is_(None))
        assert second.outcome is ArrivalOutcome.CONFLICT
        assert connection.execute(current).all() == [(second.instance_id if unfit_first else first.instance_id, None)]
        again = record(connection, replace(unfit, content=replace(fit.content, location="spool:0003")))
        assert (again.outcome is ArrivalOutcome.CONFLICT, connection.execute(current).one().unfit) == (True, None)
    engine.dispose()


@pytest.mark.parametrize("state", ["verified", "dropped", "held"])
def test_what_is_unfit_is_a_persons_however_often_it_comes(state: str) -> None:
    engine = create_engine("sqlite://")
    (arrival,) = made([(1, 1, ("a",))])
    unfit = replace(arrival, unfit="with JPEG in it")
    with engine.connect() as connection:
        migrate(connection)
        assert record(connection, unfit).queued == ()
        connection.execute(update(deliveries).values(state=state))
        again = replace(unfit, content=replace(unfit.content, location="spool:0002"), at=2.0)
        assert (record(connection, again).queued, record_many(connection, [again])[0].queued) == ((), ())
        assert connection.execute(select(deliveries.c.state)).scalars().all() == [state]
    engine.dispose()


STANDINGS = [
    (state, reason, bytes_state)
    for state, reason in (
        *((state.value, None) for state in DeliveryState),
        ("held", MISSING_REASON),
    )
    for bytes_state in ("kept", "released", "missing")
]


@pytest.mark.parametrize("route", [("a",), ("a", "b"), ()], ids=["one", "two", "unrouted"])
@pytest.mark.parametrize(("state", "reason", "bytes_state"), STANDINGS)
def test_what_comes_again_takes_no_more_statements_the_more_it_is(
    state: str, reason: str | None, bytes_state: str, route: tuple[str, ...]
) -> None:
    """Statements, not rows, are what an arrival costs: whatever became of an instance, a batch that comes again takes few.

    Other content is decided instance by instance: which one is newer is said of each destination.
    """
    assert statements(10, state, reason, bytes_state, route) == statements(50, state, reason, bytes_state, route)


def statements(count: int, state: str, reason: str | None, bytes_state: str, route: tuple[str, ...]) -> int:
    """Return how many statements it takes to record `count` instances that came before and stand like this."""
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    told: list[str] = []
    try:
        with engine.connect() as connection:
            migrate(connection)
            every = made([(uid, 1, route) for uid in range(count)] + [(uid, 1, route) for uid in range(count)])
            record_many(connection, every[:count])
            connection.execute(update(deliveries).values(state=state, reason=reason))
            connection.execute(update(instances).values(bytes_state=bytes_state))
            event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_rest: told.append(statement))
            again = record_many(connection, every[count:])
            assert {recorded.outcome for recorded in again} == {"duplicate"}
            return len(told)
    finally:
        engine.dispose()
