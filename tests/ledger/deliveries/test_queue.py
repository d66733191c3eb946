from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from gateway.core.domain import DeliveryState as S
from gateway.ledger import Ledger
from gateway.ledger.database.schema import arrivals, deliveries, expected_instances, instances, jobs, retrievals
from gateway.ledger.deliveries import overview, progress, queue
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.deliveries.queue import Action, Selection

NOW = 1_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def add_instance(
    connection: Connection, uid: str, *, study: str = "1.2", size: int = 10, routed: bool = True, **columns: object
) -> int:
    values = {
        "sop_instance_uid": uid,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "location": f"spool:{uid}-{columns.get('digest', 'd')}",
        "content_offset": 300,
        "content_length": size,
        "digest": "d",
        "calling_ae": "PACS",
        "called_ae": "GATEWAY",
        "address": "127.0.0.1",
        "association": "a1",
        "received_at": NOW - 60,
        "routed": routed,
    }
    key = connection.execute(insert(instances).values(**(values | columns))).inserted_primary_key
    assert key is not None
    return int(key[0])


def add_delivery(connection: Connection, instance_id: int, state: S, *, to: str = "a", **columns: object) -> int:
    values = {"instance_id": instance_id, "destination": to, "state": state, "due_at": NOW + 900, "changed_at": NOW - 5}
    key = connection.execute(insert(deliveries).values(**(values | columns))).inserted_primary_key
    assert key is not None
    return int(key[0])


def one_in_each_state(connection: Connection) -> dict[S, int]:
    return {state: add_delivery(connection, add_instance(connection, f"1.{n}"), state, attempts=3) for n, state in enumerate(S)}


def state_of(ledger: Ledger, delivery_id: int) -> queue.Entry:
    with ledger.read() as connection:
        return queue.entries(connection, Selection(ids=(delivery_id,)))[0]


@pytest.mark.parametrize(
    ("action", "changed", "becomes"),
    [
        (Action.RETRY, {S.HELD, S.DEFERRED}, S.PENDING),
        (Action.HOLD, {S.PENDING, S.DEFERRED}, S.HELD),
        (Action.RELEASE, {S.HELD}, S.PENDING),
        (Action.DROP, {S.PENDING, S.DEFERRED, S.HELD}, S.DROPPED),
    ],
)
def test_an_action_on_everything_changes_what_it_may_and_nothing_else(
    ledger: Ledger, action: Action, changed: set[S], becomes: S
) -> None:
    ids = ledger.write(one_in_each_state)
    assert ledger.write(lambda connection: queue.act(connection, Selection(), action, now=NOW)) == len(changed)
    for state, delivery_id in ids.items():
        assert state_of(ledger, delivery_id).state == (becomes if state in changed else state)


def test_a_retried_delivery_is_due_at_once_with_all_attempts_anew(ledger: Ledger) -> None:
    ids = ledger.write(one_in_each_state)
    ledger.write(lambda connection: queue.act(connection, Selection(ids=(ids[S.HELD],)), Action.RETRY, now=NOW))
    entry = state_of(ledger, ids[S.HELD])
    assert (entry.attempts, entry.due_at, entry.reason) == (0, NOW, None)


def test_a_released_delivery_keeps_its_count_of_attempts(ledger: Ledger) -> None:
    ids = ledger.write(one_in_each_state)
    ledger.write(lambda connection: queue.act(connection, Selection(ids=(ids[S.HELD],)), Action.RELEASE, now=NOW))
    assert state_of(ledger, ids[S.HELD]).attempts == 3


def test_a_dropped_delivery_comes_back_only_when_it_is_named(ledger: Ledger) -> None:
    dropped = ledger.write(lambda c: add_delivery(c, add_instance(c, "1.1"), S.DROPPED))
    assert ledger.write(lambda c: queue.act(c, Selection(destinations=("a",)), Action.RETRY, now=NOW)) == 0
    assert ledger.write(lambda c: queue.act(c, Selection(ids=(dropped,)), Action.RETRY, now=NOW)) == 1


def test_parts_of_a_bulk_change_leave_out_deliveries_that_changed(ledger: Ledger) -> None:
    ids = [ledger.write(lambda c, n=n: add_delivery(c, add_instance(c, f"1.{n}"), S.HELD)) for n in range(5)]
    with ledger.read() as connection:
        parts = queue.parts(connection, Selection(destinations=("a",)), Action.RETRY, size=2)
    assert [part.ids for part in parts] == [(ids[0], ids[1]), (ids[2], ids[3]), (ids[4],)]
    ledger.write(lambda c: queue.act(c, Selection(ids=(ids[2],)), Action.DROP, now=NOW))
    assert [ledger.write(lambda c, part=part: queue.act(c, part, Action.RETRY, now=NOW)) for part in parts] == [2, 1, 1]


def test_what_has_no_bytes_any_more_or_was_superseded_is_not_retried(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        newer = add_instance(connection, "1.1")
        released = add_instance(connection, "1.2", bytes_state="released")
        older = add_instance(connection, "1.1", digest="other", superseded_by=newer)
        add_delivery(connection, released, S.HELD)
        add_delivery(connection, older, S.HELD, superseded=True)

    ledger.write(fill)
    with ledger.read() as connection:
        unmoved = queue.unmoved(connection, Selection(), Action.RETRY)
    assert sorted((one.count, one.why.partition(":")[0]) for one in unmoved) == [
        (1, "its bytes are gone, nobody was owed them any more"),
        (1, "other content under its SOP Instance UID is newer there"),
    ]
    assert ledger.write(lambda connection: queue.act(connection, Selection(), Action.RETRY, now=NOW)) == 0


@pytest.mark.parametrize("action", [Action.RETRY, Action.RELEASE])
def test_superseded_content_is_the_newest_once_its_number_is_named(ledger: Ledger, action: Action) -> None:
    def fill(connection: Connection) -> tuple[int, int, int]:
        newer = add_instance(connection, "1.1")
        older = add_instance(connection, "1.1", digest="other", superseded_by=newer)
        elsewhere = add_delivery(connection, newer, S.PENDING, to="b")
        ids = add_delivery(connection, older, S.HELD, superseded=True), add_delivery(connection, newer, S.PENDING)
        return (*ids, elsewhere)

    older, newer, elsewhere = ledger.write(fill)
    assert ledger.write(lambda connection: queue.act(connection, Selection(ids=(older,)), action, now=NOW)) == 1
    assert [(state_of(ledger, one).state, state_of(ledger, one).superseded) for one in (older, newer, elsewhere)] == [
        ("pending", False),
        ("held", True),
        ("pending", False),
    ]


def test_a_file_sent_in_place_can_be_had_back_after_a_drop(ledger: Ledger) -> None:
    def fill(connection: Connection) -> int:
        instance = add_instance(connection, "1.1", location="file:1:2:/x/a.dcm", bytes_state="released")
        return add_delivery(connection, instance, S.DROPPED)

    delivery = ledger.write(fill)
    assert ledger.write(lambda connection: queue.act(connection, Selection(ids=(delivery,)), Action.RETRY, now=NOW)) == 1
    assert (state_of(ledger, delivery).state, state_of(ledger, delivery).bytes_state) == ("pending", "kept")


def test_what_an_action_leaves_is_told_with_the_reason(ledger: Ledger) -> None:
    ids = ledger.write(one_in_each_state)

    def unmoved(action: Action, **selection: tuple[object, ...]) -> dict[str, tuple[int, ...]]:
        with ledger.read() as connection:
            return {one.why.partition(":")[0]: one.ids for one in queue.unmoved(connection, Selection(**selection), action)}  # type: ignore[arg-type]

    for action in Action:
        named = unmoved(action, ids=(*ids.values(), 4711))
        assert named.pop("no such delivery") == (4711,)
        left = {one for some in named.values() for one in some}
        assert left == {key for state, key in ids.items() if state not in queue.STARTS[action]}, action
        assert "it is verified" in named
    assert unmoved(Action.RELEASE, states=(S.DEFERRED,)) == {"it waits for its next try": (ids[S.DEFERRED],)}
    assert set(unmoved(Action.DROP)) == {"it is being sent", "it is delivered and waits for its proof"}
    assert set(unmoved(Action.RETRY, states=(S.VERIFIED,), destinations=("a",))) == {"it is verified"}
    assert unmoved(Action.RETRY, destinations=("nowhere",)) == {}
    assert unmoved(Action.HOLD, ids=(ids[S.HELD],), studies=("no",)) == {
        "no such delivery that also meets the other conditions": (ids[S.HELD],)
    }


def test_all_conditions_of_a_selection_must_hold(ledger: Ledger) -> None:
    def fill(connection: Connection) -> int:
        wanted = add_delivery(connection, add_instance(connection, "1.1", study="9.1"), S.HELD, to="a")
        add_delivery(connection, add_instance(connection, "1.2", study="9.2"), S.HELD, to="a")
        add_delivery(connection, add_instance(connection, "1.3", study="9.1"), S.HELD, to="b")
        add_delivery(connection, add_instance(connection, "1.4", study="9.1"), S.PENDING, to="a")
        return wanted

    wanted = ledger.write(fill)
    selection = Selection(destinations=("a",), states=(S.HELD,), studies=("9.1",))
    with ledger.read() as connection:
        assert [entry.id for entry in queue.entries(connection, selection)] == [wanted]
        assert queue.count(connection, selection) == 1


def test_a_list_without_states_pages_through_unsettled_deliveries(ledger: Ledger) -> None:
    ids = ledger.write(one_in_each_state)
    unsettled = sorted(ids[state] for state in overview.UNSETTLED)
    with ledger.read() as connection:
        assert [entry.id for entry in queue.entries(connection, Selection())] == unsettled
        assert [entry.id for entry in queue.entries(connection, Selection(), limit=2, offset=2)] == unsettled[2:4]
        assert queue.count(connection, Selection()) == len(unsettled)


def test_the_depth_of_a_queue_counts_instances_bytes_and_the_oldest(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        for number, age in enumerate((60, 600)):
            instance = add_instance(connection, f"1.{number}", size=100, received_at=NOW - age)
            add_delivery(connection, instance, S.DEFERRED)
        add_delivery(connection, add_instance(connection, "1.9"), S.VERIFIED)

    ledger.write(fill)
    with ledger.read() as connection:
        assert overview.queue_depths(connection) == [overview.QueueDepth("a", S.DEFERRED, 2, 200, NOW - 600)]
        assert overview.settled_counts(connection) == {"a": {"verified": 1}}


def test_holdings_count_what_no_route_took_and_conflicts(ledger: Ledger) -> None:
    def fill(connection: Connection) -> tuple[int, int]:
        newer = add_instance(connection, "1.1")
        older = add_instance(connection, "1.1", digest="other", superseded_by=newer)
        add_instance(connection, "1.2", routed=False)
        add_instance(connection, "1.3", bytes_state="missing")
        return older, newer

    older, newer = ledger.write(fill)
    with ledger.read() as connection:
        assert overview.holdings(connection) == overview.Holdings(3, 0, 1, 1, 1, None)
        assert overview.conflicts(connection) == [overview.Conflict("1.1", "1.2", older, newer, NOW - 60)]


def test_a_retrieval_owns_deliveries_of_expected_and_arrived_instances(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        job = {
            "id": 1,
            "kind": "pull",
            "fingerprint": "f",
            "criteria": "{}",
            "state": "running",
            "created_at": NOW,
            "changed_at": NOW,
        }
        connection.execute(insert(jobs).values(**job))
        connection.execute(insert(retrievals).values(id=7, job_id=1, source="s", study_instance_uid="9", started_at=NOW))
        expected = add_instance(connection, "1.1", study="9")
        arrived = add_instance(connection, "1.2", study="9")
        other = add_instance(connection, "1.3", study="9")
        wanted = {"retrieval_id": 7, "sop_instance_uid": "1.1", "series_instance_uid": "9.1"}
        connection.execute(insert(expected_instances).values(**wanted))
        came = {"instance_id": arrived, "sop_instance_uid": "1.2", "retrieval_id": 7, "outcome": "new", "at": NOW}
        connection.execute(insert(arrivals).values(**came))
        add_delivery(connection, expected, S.VERIFIED, proof="exists")
        add_delivery(connection, arrived, S.HELD, reason="refused")
        add_delivery(connection, other, S.PENDING)

    ledger.write(fill)
    scope = Scope(job_id=1)
    with ledger.read() as connection:
        counted = progress.count_states(connection, scope)
        left = progress.undelivered(connection, scope)
    assert {(row.state, row.proof, row.count) for row in counted} == {(S.VERIFIED, "exists", 1), (S.HELD, None, 1)}
    assert [(row.sop_instance_uid, row.state, row.reason) for row in left] == [("1.2", S.HELD, "refused")]


def pull_of(connection: Connection, study: str, **expected: bool) -> None:
    """Record a job of one study which expects these SOP Instance UIDs (dots as underscores); the values say which are skipped."""
    job = {"id": 1, "kind": "pull", "fingerprint": "f", "criteria": "{}", "state": "done", "created_at": NOW, "changed_at": NOW}
    connection.execute(insert(jobs).values(**job))
    connection.execute(insert(retrievals).values(id=7, job_id=1, source="s", study_instance_uid=study, started_at=NOW))
    for uid, skipped in expected.items():
        wanted = {"retrieval_id": 7, "sop_instance_uid": uid.strip("_").replace("_", "."), "skipped": skipped}
        connection.execute(insert(expected_instances).values(**wanted, series_instance_uid=f"{study}.1"))


@pytest.mark.parametrize("pulled", ["9", "10"])
def test_an_instance_superseded_by_another_study_is_owed_by_its_own_pull(ledger: Ledger, pulled: str) -> None:
    def fill(connection: Connection) -> None:
        pull_of(connection, pulled, _1_1=False)
        newer = add_instance(connection, "1.1", study="10", digest="other")
        older = add_instance(connection, "1.1", study="9", superseded_by=newer)
        add_delivery(connection, newer, S.VERIFIED)
        add_delivery(connection, older, S.HELD, reason="superseded")

    ledger.write(fill)
    with ledger.read() as connection:
        left = progress.undelivered(connection, Scope(job_id=1))
    assert [row.study_instance_uid for row in left] == (["9"] if pulled == "9" else [])


def test_a_superseded_content_without_a_route_is_nobodys_concern(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        pull_of(connection, "9", _1_1=False)
        newer = add_instance(connection, "1.1", study="9", digest="other")
        add_instance(connection, "1.1", study="9", superseded_by=newer, routed=False)
        add_delivery(connection, newer, S.VERIFIED)

    ledger.write(fill)
    with ledger.read() as connection:
        assert progress.unrouted(connection, Scope(job_id=1)) == 0


def test_instances_skipped_as_already_held_are_not_waited_for(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        pull_of(connection, "9", _1_1=True, _1_2=False)
        for uid in ("1.1", "1.2"):
            add_delivery(connection, add_instance(connection, uid, study="9"), S.HELD)

    ledger.write(fill)
    with ledger.read() as connection:
        assert [row.sop_instance_uid for row in progress.undelivered(connection, Scope(job_id=1))] == ["1.2"]


def test_a_scope_of_instances_is_narrowed_to_its_destinations(ledger: Ledger) -> None:
    def fill(connection: Connection) -> tuple[int, ...]:
        found = tuple(add_instance(connection, f"1.{number}") for number in range(600))
        for instance in found:
            add_delivery(connection, instance, S.PENDING, to="a")
            add_delivery(connection, instance, S.PENDING, to="b")
        return found

    scope = Scope(instance_ids=ledger.write(fill), destinations=("b",))
    with ledger.read() as connection:
        assert [(row.destination, row.count) for row in progress.count_states(connection, scope)] == [("b", 600)]


def test_the_last_verdicts_come_newest_first_and_tell_what_still_runs(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        connection.execute(
            insert(jobs).values(id=1, kind="pull", fingerprint="f", criteria="{}", state="stopped", created_at=NOW, changed_at=NOW)
        )
        for study, verdict in (("9.1", "complete"), ("9.2", None)):
            connection.execute(
                insert(retrievals).values(job_id=1, source="s", study_instance_uid=study, verdict=verdict, started_at=NOW)
            )

    ledger.write(fill)
    with ledger.read() as connection:
        assert [(row.study_instance_uid, row.verdict) for row in overview.last_verdicts(connection)] == [
            ("9.2", None),
            ("9.1", "complete"),
        ]
        assert overview.stopped_jobs(connection) == 1


def test_the_reasons_for_holding_come_with_the_most_frequent_first(ledger: Ledger) -> None:
    def fill(connection: Connection) -> None:
        for number, reason in enumerate(["refused", "full", "full"]):
            add_delivery(connection, add_instance(connection, f"1.{number}"), S.HELD, reason=reason)

    ledger.write(fill)
    with ledger.read() as connection:
        assert overview.held_reasons(connection) == [("a", "full", 2), ("a", "refused", 1)]
