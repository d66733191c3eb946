"""The newest content is judged for each destination alone: content that does not go there stops nothing there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, select, text

from gateway.core.domain import Content, DeliveryState, InstanceIdentity, Provenance
from gateway.ledger import Ledger
from gateway.ledger.database import transitions
from gateway.ledger.database.migrations import MIGRATIONS, migrate
from gateway.ledger.database.schema import deliveries, instances, schema_version
from gateway.ledger.deliveries import progress
from gateway.ledger.deliveries.claiming import claim
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.jobs import retrievals
from gateway.ledger.received.instances import SUPERSEDED, Arrival, send_again
from gateway.ledger.received.recording import record, record_anew

PROVENANCE = Provenance("PACS", "GATEWAY", "127.0.0.1", "a-1")
NUMBERS = count(1)


def arrival(content: str, *to: str, at: float = 1.0) -> Arrival:
    identity = InstanceIdentity("1.2.840", "1.2.3", "1.2.840.10008.1.2.1", "1.2", "1.2.9")
    return Arrival(identity, PROVENANCE, Content(f"spool:{next(NUMBERS):06}", 10, 100, f"{content:>32}"), to, at=at)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def standing(connection: Connection) -> dict[tuple[str, str], str]:
    """Return the state of each content, by its digest, at each destination."""
    rows = connection.execute(select(instances.c.digest, deliveries.c.destination, deliveries.c.state).join(deliveries))
    return {(digest.strip(), to): state for digest, to, state in rows}


def states(ledger: Ledger) -> dict[tuple[str, str], str]:
    with ledger.read() as connection:
        return standing(connection)


def came(ledger: Ledger, content: str, *to: str, at: float = 1.0, late: bool = False) -> int:
    return ledger.write(lambda connection: record(connection, arrival(content, *to, at=at), late=late)).instance_id


def test_newer_content_for_one_destination_leaves_the_others_theirs(ledger: Ledger) -> None:
    older = came(ledger, "old", "a", "b")
    newer = came(ledger, "new", "b")
    assert states(ledger) == {("old", "a"): "pending", ("old", "b"): "held", ("new", "b"): "pending"}
    claimed = ledger.write(lambda connection: claim(connection, "a", now=2.0, max_instances=9, max_bytes=9999))
    assert [one.instance_id for one in claimed.consignments] == [older]
    claimed = ledger.write(lambda connection: claim(connection, "b", now=2.0, max_instances=9, max_bytes=9999))
    assert [one.instance_id for one in claimed.consignments] == [newer]


def test_what_came_for_nobody_stops_nothing(ledger: Ledger) -> None:
    came(ledger, "old", "a")
    came(ledger, "new")
    assert states(ledger) == {("old", "a"): "pending"}


def test_newer_content_that_goes_there_later_stops_the_older_then(ledger: Ledger) -> None:
    came(ledger, "old", "a")
    newer = came(ledger, "new", "b")
    ledger.write(lambda connection: send_again(connection, newer, ("a",), now=2.0))
    assert states(ledger) == {("old", "a"): "held", ("new", "b"): "pending", ("new", "a"): "pending"}


def test_the_same_content_again_goes_over_what_came_between(ledger: Ledger) -> None:
    came(ledger, "new", "b")
    came(ledger, "newer", "a")
    came(ledger, "new", "a", at=3.0)
    assert states(ledger)["newer", "a"] == "held"
    assert states(ledger)["new", "b"] == "pending"
    with ledger.read() as connection:
        assert len([1 for (_, to), state in standing(connection).items() if to == "a" and state == "pending"]) == 1


def test_older_content_that_is_sent_where_newer_is_waits_for_a_person(ledger: Ledger) -> None:
    older = came(ledger, "old", "a")
    came(ledger, "new", "b")
    assert ledger.write(lambda connection: send_again(connection, older, ("b",), now=2.0)) == ()
    assert states(ledger)["old", "b"] == "held"
    assert ledger.write(lambda connection: send_again(connection, older, ("a", "b"), now=2.0)) == ("a",)


def test_what_is_being_sent_is_stopped_only_once_it_failed(ledger: Ledger) -> None:
    came(ledger, "old", "a")
    (sent,) = ledger.write(lambda connection: claim(connection, "a", now=2.0, max_instances=9, max_bytes=9999)).consignments
    came(ledger, "new", "a")
    assert states(ledger) == {("old", "a"): "sending", ("new", "a"): "pending"}
    ledger.write(lambda connection: transitions.move(connection, [sent.delivery_id], DeliveryState.PENDING, now=2.0))
    claimed = ledger.write(lambda connection: claim(connection, "a", now=9.0, max_instances=9, max_bytes=9999))
    assert [one.content.digest.strip() for one in claimed.consignments] == ["new"]
    assert states(ledger)["old", "a"] == "held"


def test_late_content_goes_where_nothing_newer_does(ledger: Ledger) -> None:
    came(ledger, "new", "a", at=5.0)
    came(ledger, "old", "a", "b", at=3.0, late=True)
    assert states(ledger) == {("new", "a"): "pending", ("old", "a"): "held", ("old", "b"): "pending"}


def test_content_that_is_wanted_anew_is_the_newest_where_it_is_wanted(ledger: Ledger) -> None:
    first = arrival("old", "a", "b")
    ledger.write(lambda connection: record(connection, first))
    came(ledger, "new", "a", "b")
    again = Arrival(first.identity, PROVENANCE, first.content, ("a",), at=4.0)
    ledger.write(lambda connection: record_anew(connection, again))
    assert states(ledger) == {("old", "a"): "pending", ("new", "a"): "held", ("old", "b"): "held", ("new", "b"): "pending"}


def test_a_send_counts_older_content_where_it_was_to_go(ledger: Ledger) -> None:
    older = came(ledger, "old", "a")
    came(ledger, "new", "b")
    with ledger.read() as connection:
        (row,) = progress.count_states(connection, Scope(instance_ids=(older,), destinations=("a",)))
    assert (row.destination, row.state, row.count) == ("a", "pending", 1)


orders = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sets(st.sampled_from("abc")), st.sampled_from(["came", "late", "anew", "send"])),
    max_size=9,
)


@settings(max_examples=50, deadline=None)
@given(orders)
def test_at_each_destination_one_content_is_the_newest(drawn: Sequence[tuple[str, set[str], str]]) -> None:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    with engine.connect() as connection:
        migrate(connection)
        for number, (content, to, how) in enumerate(drawn, 2):
            one = arrival(content, *sorted(to), at=number - 1.5 if how == "late" else float(number))
            if how == "anew":
                record_anew(connection, one)
            else:
                record(connection, one, late=how == "late", again=how != "send")
        newest: dict[str, int] = defaultdict(int)
        columns = (deliveries.c.destination, deliveries.c.superseded, deliveries.c.state, deliveries.c.reason)
        for destination, superseded, state, reason in connection.execute(select(*columns)):
            newest[destination] += not superseded
            assert (state == "held") is (reason == SUPERSEDED) is bool(superseded)
        assert set(newest.values()) <= {1}
    engine.dispose()


def test_what_an_older_gateway_stopped_for_nothing_goes_on(ledger: Ledger) -> None:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    with engine.connect() as connection:
        migrate(connection)
        record(connection, arrival("old", "a", "b"))
        record(connection, arrival("new", "b"))
        connection.execute(deliveries.update().where(deliveries.c.id == 1).values(state="held", reason=SUPERSEDED))
        for statement in (
            "DROP INDEX deliveries_of_before",
            "ALTER TABLE deliveries DROP COLUMN was_there",
            "ALTER TABLE deliveries DROP COLUMN superseded",
            "ALTER TABLE instances DROP COLUMN same_as",
        ):
            connection.execute(text(statement))
        connection.execute(schema_version.update().values(version=7))
        migrate(connection, MIGRATIONS[:8])
        assert standing(connection) == {("old", "a"): "pending", ("old", "b"): "held", ("new", "b"): "pending"}
    engine.dispose()


def unfit_came(ledger: Ledger, content: str, *to: str) -> int:
    one = replace(arrival(content, *to), unfit="with Pixel Data in another form")
    return ledger.write(lambda connection: record(connection, one)).instance_id


def asked_for(ledger: Ledger, content: str, *to: str, **changes: str) -> None:
    """Record what came for a retrieval, with other UIDs where `changes` say so."""
    job = ledger.write(partial(retrievals.open_job, kind="pull", fingerprint="f", criteria="{}", now=1.0))
    opened = partial(retrievals.open_retrieval, job_id=job.id, source="archive", study_instance_uid="1.2", now=1.0)
    one = arrival(content, *to, at=2.0)
    one = replace(one, identity=replace(one.identity, **changes), retrieval_id=ledger.write(opened).id)
    ledger.write(lambda connection: record(connection, one))


def test_what_came_unfit_is_dropped_once_its_source_sent_it_well(ledger: Ledger) -> None:
    unfit_came(ledger, "bad", "a", "b")
    unfit_came(ledger, "worse", "a")
    asked_for(ledger, "good", "a")
    assert states(ledger) == {
        ("bad", "a"): "dropped",
        ("worse", "a"): "dropped",
        ("bad", "b"): "held",
        ("good", "a"): "pending",
    }


@pytest.mark.parametrize("changes", [{"study_instance_uid": "1.2.77"}, {"series_instance_uid": "1.2.77"}])
def test_what_came_unfit_in_another_study_or_series_stays_held(ledger: Ledger, changes: dict[str, str]) -> None:
    unfit_came(ledger, "bad", "a")
    asked_for(ledger, "good", "a", **changes)
    assert states(ledger) == {("bad", "a"): "held", ("good", "a"): "pending"}


def test_what_came_unfit_stays_held_where_nobody_asked_for_it_again(ledger: Ledger) -> None:
    unfit_came(ledger, "bad", "a")
    came(ledger, "good", "a", at=2.0)
    assert states(ledger) == {("bad", "a"): "held", ("good", "a"): "pending"}


def test_fit_rival_content_is_never_dropped_for_requested_content(ledger: Ledger) -> None:
    came(ledger, "old", "a")
    asked_for(ledger, "good", "a")
    assert states(ledger) == {("old", "a"): "held", ("good", "a"): "pending"}
