"""Counting an arrival to its retrieval: by the C-MOVE's Message ID, else by the expected UIDs, else to none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from gateway.core.domain import Basis, Provenance, Purpose
from gateway.retrieve import JobSpec
from gateway.retrieve.arrivals import Arrivals
from gateway.retrieve.state import StudyState
from gateway.retrieve.verdict import Expectation


def sent(message_id: int | None = None, *, source: str | None = "archive", originator: str | None = "GATEWAY") -> Provenance:
    return Provenance("ARCHIVE", "GATEWAY", "127.0.0.1", "a1", source, originator if message_id else None, message_id)


def state(number: int, nudge: Callable[[], None] = lambda: None, destinations: tuple[str, ...] = ()) -> StudyState:
    spec = JobSpec("pull", "1", "{}", destinations)
    return StudyState(retrieval_id=number, study="1.2", source="archive", spec=spec, nudge=nudge)


def listed(*names: str) -> Expectation:
    return Expectation(Basis.UIDS, len(names), dict.fromkeys(names, "1.2"))


def watching(*states: StudyState) -> Arrivals:
    arrivals = Arrivals("GATEWAY")
    for one in states:
        arrivals.open(one)
    return arrivals


def test_an_unlisted_instance_of_our_move_is_counted_to_it() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.register(one, 77)

    assert arrivals.correlate(sent(77), "1.2.3") == Purpose(1)


def test_an_instance_goes_where_its_retrieval_wants_it() -> None:
    one = state(1, destinations=("orthanc-a",))
    arrivals = watching(one)
    arrivals.register(one, 77)
    arrivals.close(one)

    assert arrivals.correlate(sent(77), "1.2.3") == Purpose(1, ("orthanc-a",))


def test_a_move_of_somebody_else_with_the_same_message_id_is_not_ours() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.register(one, 77)

    assert arrivals.correlate(sent(77, originator="OTHER"), "1.2.3") is None
    assert arrivals.correlate(sent(77, source="scanner"), "1.2.3") is None


def test_without_an_originator_the_expected_uids_decide() -> None:
    one, two = state(1), state(2)
    arrivals = watching(one, two)
    arrivals.expect(one, listed("1.2.1"))
    arrivals.expect(two, listed("1.2.2"))

    assert [arrivals.correlate(sent(), uid) for uid in ("1.2.1", "1.2.2", "1.2.3")] == [Purpose(1), Purpose(2), None]


def test_a_stale_message_id_gives_way_to_the_expecting_retrieval() -> None:
    one, two = state(1), state(2)
    arrivals = watching(one, two)
    arrivals.register(one, 77)
    arrivals.expect(one, listed("1.2.1"))
    arrivals.expect(two, listed("1.2.2"))

    assert arrivals.correlate(sent(77), "1.2.2") == Purpose(2)
    assert arrivals.correlate(sent(77), "1.2.1") == Purpose(1)


def test_an_expected_instance_may_come_from_another_node_of_the_source() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.register(one, 77)
    arrivals.expect(one, listed("1.2.1"))

    assert arrivals.correlate(sent(77, source="archive-node-2"), "1.2.1") == Purpose(1)


def test_the_same_instance_from_another_known_source_does_not_count() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.expect(one, listed("1.2.1"))

    assert arrivals.correlate(sent(source="scanner"), "1.2.1") is None
    assert arrivals.correlate(sent(source=None), "1.2.1") == Purpose(1)


def test_an_instance_after_the_end_is_still_known_by_its_message_id() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.register(one, 77)
    arrivals.expect(one, listed("1.2.1"))
    arrivals.close(one)

    assert arrivals.correlate(sent(77), "1.2.1") == Purpose(1)
    assert arrivals.correlate(sent(), "1.2.1") is None


def test_arrivals_are_counted_once_each_and_wake_whoever_waits() -> None:
    woken = threading.Event()
    one = state(1, woken.set)
    arrivals = watching(one)
    arrivals.expect(one, listed("1.2.1", "1.2.2"))

    arrivals.arrived(1, "1.2.1", 100)
    arrivals.arrived(1, "1.2.1", 100)
    arrivals.arrived(1, "1.2.9", 10)

    assert woken.is_set()
    assert (one.present, one.arrivals, one.bytes) == (1, 3, 110)


def test_everyone_who_expects_an_instance_learns_of_it() -> None:
    one, two = state(1), state(2)
    arrivals = watching(one, two)
    for each in (one, two):
        arrivals.expect(each, listed("1.2.1"))

    arrivals.arrived(2, "1.2.1", 5)
    arrivals.arrived(None, "1.2.8", 5)

    assert (one.present, two.present) == (1, 1)


def test_unsolicited_instances_are_signs_of_life_where_no_uid_is_known() -> None:
    one = state(1)
    arrivals = watching(one)

    arrivals.arrived(None, "1.2.1", 5)

    assert one.last_arrival > 0
    assert one.arrivals == 0


def test_growing_expectations_count_what_came_before() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.arrived(1, "1.2.1", 5)
    arrivals.expect(one, listed("1.2.1", "1.2.2"))

    assert one.present == 1


def test_instances_that_destinations_hold_are_nobodys_to_come() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.expect(one, listed("1.2.1", "1.2.2"), {"1.2.2"})

    arrivals.arrived(1, "1.2.2", 5)

    assert [arrivals.correlate(sent(), uid) for uid in ("1.2.1", "1.2.2")] == [Purpose(1), None]
    assert (one.present, one.outstanding()) == (0, 1)


def test_what_came_unfit_is_still_to_come() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.expect(one, listed("1.2.1", "1.2.2"))
    for uid in ("1.2.1", "1.2.2"):
        arrivals.arrived(1, uid, 5)
    assert one.outstanding() == 0

    arrivals.forget(one, ["1.2.2"])

    assert (one.present, one.outstanding()) == (1, 1)


def test_what_is_counted_and_not_listed_is_outstanding_too() -> None:
    one = state(1)
    arrivals = watching(one)
    arrivals.expect(one, replace(listed("1.2.1"), counted=3))

    arrivals.arrived(1, "1.2.1", 5)
    assert one.outstanding() == 2
    arrivals.arrived(1, "1.2.8", 5)
    assert one.outstanding() == 1


def test_without_a_list_or_a_count_nobody_knows_what_is_outstanding() -> None:
    one = state(1)
    assert one.outstanding() is None
    one.expect(Expectation(Basis.COUNTS, 2, {}))
    one.note("1.2.1", 5)
    assert one.outstanding() == 1
