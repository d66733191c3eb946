"""Findings of a look, and the few questions that it asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from gateway.core.domain import DeliveryState
from gateway.core.errors import PeerUnreachable, UnreadableAnswer
from gateway.jobs.sync.growth import AT_ONCE
from gateway.jobs.sync.look import CONFIRMED_A_LOOK, LookResult
from gateway.jobs.sync.series import Selection, Take
from gateway.jobs.sync.study import State
from gateway.retrieve import Wanted
from tests.jobs.sync.conftest import Desk

MakeDesk = Callable[..., Desk]
Clock = trio.testing.MockClock
INTERVAL_S, COMPARE_S = 60.0, 6 * 3600.0


def states(glance: LookResult) -> dict[State, int]:
    return {state: count for state, count in glance.states.items() if count}


def wanted(glance: LookResult) -> list[Wanted]:
    return [one.wanted for one in glance.missing]


def full(desk: Desk) -> Desk:
    """The source has a study of two series, the destinations have it all."""
    for place in (desk.source, *desk.destinations.values()):
        place.put("1", "1.1", 1, 2, 3)
        place.put("1", "1.2", 1)
    return desk


async def test_a_study_that_is_not_there_is_missing_once_it_was_seen_unchanged(desk: MakeDesk) -> None:
    here = desk()
    here.source.put("1", "1.1", 1, 2)
    assert states(await here.look()) == {State.GROWING: 1}
    here.source.put("1", "1.1", 3)
    assert states(await here.look()) == {State.GROWING: 1}
    glance = await here.look()
    assert states(glance) == {State.MISSING: 1}
    (missing,) = glance.missing
    assert (missing.wanted, missing.destinations, missing.series, missing.instances) == (Wanted("1"), ("a",), 1, 3)


async def test_a_series_that_still_grows_keeps_no_other_from_coming(desk: MakeDesk) -> None:
    here = desk()
    here.source.put("1", "1.1", 1, 2)
    await here.look()
    here.source.put("1", "1.2", 1)
    assert wanted(await here.look()) == [Wanted("1", series=frozenset({"1.1"}))]


@pytest.mark.parametrize("lost", [{1}, {1, 2}, {1, 2, 3}])
async def test_one_to_three_missing_instances_are_seen_and_only_they_are_wanted(desk: MakeDesk, lost: set[int]) -> None:
    here = desk()
    here.source.put("1", "1.1", *range(1, 40))
    here.destination.put("1", "1.1", *set(range(1, 40)) - lost)
    uids = frozenset(f"1.1.{number}" for number in lost)
    assert wanted(await here.settled()) == [Wanted("1", series=frozenset({"1.1"}), instances=uids)]


async def test_what_is_the_same_is_asked_about_once(desk: MakeDesk) -> None:
    here = full(desk())
    assert states(await here.settled()) == {State.SAME: 1}
    here.source.questions()
    here.destination.questions()
    assert states(await here.look()) == {State.SAME: 1}
    assert here.source.questions() == here.destination.questions() == []


async def test_a_destination_that_lists_fewer_than_it_has_lacks_nothing(desk: MakeDesk) -> None:
    here = full(desk())
    here.destination.cap = 1
    assert states(await here.settled()) == {State.SAME: 1}


async def test_a_source_that_may_have_more_than_it_lists_is_told_of(desk: MakeDesk) -> None:
    here = full(desk())
    assert (await here.settled()).error == ""
    here.source.doubtful = ("there may be more",)
    assert (await here.look()).error == "there may be more"


async def test_equal_counts_are_confirmed_by_uids_first_and_then_rarely(desk: MakeDesk, mock_clock: Clock) -> None:
    here = full(desk())
    here.destination.held["1"]["1.1"] = {"1.1.1", "1.1.2", "1.1.9"}
    part = Wanted("1", series=frozenset({"1.1"}), instances=frozenset({"1.1.3"}))
    assert wanted(await here.settled()) == [part]

    here.destination.put("1", "1.1", 3)
    assert states(await here.look()) == {State.SAME: 1}
    here.destination.held["1"]["1.1"] = {"1.1.1", "1.1.2", "1.1.8", "1.1.9"}
    assert states(await here.look()) == {State.SAME: 1}
    mock_clock.jump(COMPARE_S)
    assert wanted(await here.look()) == [part]


async def test_a_look_confirms_no_more_studies_than_it_has_time_for(desk: MakeDesk) -> None:
    here = desk(patience=AT_ONCE)
    for number in range(CONFIRMED_A_LOOK + 5):
        for place in (here.source, here.destination):
            place.put(f"1.{number}", f"1.{number}.1", 1)
    await here.look()
    assert len(here.source.questions("instances")) == CONFIRMED_A_LOOK
    await here.look()
    assert len(here.source.questions("instances")) == 5
    await here.look()
    assert here.source.questions() == []


async def test_what_a_source_does_not_count_is_listed_and_then_later_and_later(desk: MakeDesk, mock_clock: Clock) -> None:
    here = full(desk())
    here.source.counts = here.destination.counts = False
    assert states(await here.settled()) == {State.SAME: 1}
    asked = []
    for _ in range(12):
        here.source.questions()
        mock_clock.jump(INTERVAL_S)
        await here.look()
        asked.append(bool(here.source.questions()))
    assert asked == [True, False, True, False, False, False, True, False, False, False, False, False]


async def test_an_instance_more_is_seen_though_nothing_is_counted(desk: MakeDesk, mock_clock: Clock) -> None:
    here = full(desk())
    here.source.counts = here.destination.counts = False
    await here.settled()
    here.source.put("1", "1.1", 4)
    mock_clock.jump(INTERVAL_S)
    assert states(await here.look()) == {State.GROWING: 1}
    assert wanted(await here.look()) == [Wanted("1", series=frozenset({"1.1"}), instances=frozenset({"1.1.4"}))]


async def test_the_smallest_series_is_known_once_all_have_stopped_growing(desk: MakeDesk) -> None:
    here = desk(selection=Selection(Take.SMALLEST))
    here.source.put("1", "1.1", 1, 2, 3)
    here.source.put("1", "1.2", 1)
    await here.look()
    here.source.put("1", "1.2", 2, 3, 4)
    assert states(await here.look()) == {State.GROWING: 1}
    assert wanted(await here.look()) == [Wanted("1", series=frozenset({"1.1"}))]


async def test_what_no_filter_lets_through_is_not_missing(desk: MakeDesk) -> None:
    here = desk(selection=Selection(modalities=("MR",)))
    here.source.put("1", "1.1", 1, 2, 3)
    assert states(await here.settled()) == {State.SAME: 1}


async def test_each_destination_is_given_what_it_lacks(desk: MakeDesk) -> None:
    here = desk("a", "b", "c", patience=AT_ONCE)
    here.source.put("1", "1.1", 1, 2)
    here.destinations["a"].put("1", "1.1", 1, 2)
    here.destinations["b"].put("1", "1.1", 1)
    (missing,) = (await here.look()).missing
    assert missing.destinations == ("b", "c")
    assert missing.wanted == Wanted("1")


async def test_whole_and_part_series_are_named_by_instances(desk: MakeDesk) -> None:
    here = full(desk(patience=AT_ONCE))
    del here.destination.held["1"]["1.2"]
    here.destination.held["1"]["1.1"].discard("1.1.2")
    (want,) = wanted(await here.look())
    assert (want.series, want.instances) == ({"1.1", "1.2"}, {"1.1.2", "1.2.1"})


@pytest.mark.parametrize("state", [DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.DELIVERED])
async def test_what_is_on_its_way_is_left_alone(desk: MakeDesk, state: DeliveryState) -> None:
    here = desk(patience=AT_ONCE)
    here.source.put("1", "1.1", 1, 2)
    here.received("1", "1.1", 1, "a", state)
    assert states(await here.look()) == {State.UNDERWAY: 1}
    assert here.source.questions() == []


@pytest.mark.parametrize("state", [DeliveryState.HELD, DeliveryState.DROPPED])
async def test_what_waits_for_a_person_is_not_fetched_again(desk: MakeDesk, state: DeliveryState) -> None:
    here = desk(patience=AT_ONCE)
    here.source.put("1", "1.1", 1, 2)
    here.received("1", "1.1", 1, "a", state)
    part = Wanted("1", series=frozenset({"1.1"}), instances=frozenset({"1.1.2"}))
    assert wanted(await here.look()) == [part]
    here.destination.put("1", "1.1", 2)
    assert states(await here.look()) == {State.SAME: 1}


async def test_what_was_verified_and_is_gone_is_missing(desk: MakeDesk) -> None:
    here = full(desk(patience=AT_ONCE))
    here.received("1", "1.2", 1, "a", DeliveryState.VERIFIED)
    del here.destination.held["1"]["1.2"]
    assert wanted(await here.look()) == [Wanted("1", series=frozenset({"1.2"}))]


async def test_what_routes_led_elsewhere_is_not_missing_where_routes_decide(desk: MakeDesk) -> None:
    here = desk("a", "b", patience=AT_ONCE, by_routes=True)
    here.source.put("1", "1.1", 1, 2)
    for number in (1, 2):
        here.received("1", "1.1", number, "a", DeliveryState.VERIFIED)
    here.destination.put("1", "1.1", 1, 2)
    assert states(await here.look()) == {State.SAME: 1}

    here.source.put("1", "1.1", 3)
    (missing,) = (await here.look()).missing
    assert (missing.wanted.instances, missing.destinations) == (frozenset({"1.1.3"}), ())


async def test_where_destinations_are_named_they_get_it_whatever_the_routes_did(desk: MakeDesk) -> None:
    here = desk("a", "b", patience=AT_ONCE)
    here.source.put("1", "1.1", 1)
    here.received("1", "1.1", 1, "a", DeliveryState.VERIFIED)
    here.destination.put("1", "1.1", 1)
    assert [one.destinations for one in (await here.look()).missing] == [("b",)]


async def test_a_study_that_is_being_retrieved_is_skipped(desk: MakeDesk) -> None:
    here = desk(patience=AT_ONCE)
    here.source.put("1", "1.1", 1)
    here.context.busy.add(("archive", "1"))
    assert states(await here.look()) == {State.UNDERWAY: 1}


async def test_a_destination_that_is_down_costs_the_others_nothing(desk: MakeDesk) -> None:
    here = desk("a", "b", patience=AT_ONCE)
    here.source.put("1", "1.1", 1)
    here.destinations["a"].down = PeerUnreachable("connection refused", peer="A@127.0.0.1:1")
    glance = await here.look()
    assert [one.destinations for one in glance.missing] == [("b",)]
    assert "A@127.0.0.1:1" in glance.error
    here.destinations["b"].down = here.destinations["a"].down
    with pytest.raises(PeerUnreachable):
        await here.look()
    assert here.source.closed == here.destinations["a"].closed == 2


async def test_a_study_that_a_source_refuses_keeps_no_other_from_its_turn(desk: MakeDesk, mock_clock: Clock) -> None:
    here = desk(patience=AT_ONCE)
    here.source.put("1", "1.1", 1)
    here.source.put("2", "2.1", 1)
    here.source.refuses = {"1"}
    glance = await here.look()
    assert states(glance) == {State.PAUSED: 1, State.MISSING: 1}
    assert "C001" in glance.error
    here.source.questions()
    assert states(await here.look())[State.PAUSED] == 1
    assert "series 1" not in here.source.questions()
    mock_clock.jump(INTERVAL_S)
    await here.look()
    assert "series 1" in here.source.questions()


async def test_an_unreadable_answer_about_a_study_costs_that_study(desk: MakeDesk) -> None:
    here = desk(patience=AT_ONCE)
    here.source.put("1", "1.1", 1)
    here.source.put("2", "2.1", 1)
    here.source.refuses, here.source.refusal = {"1"}, UnreadableAnswer("answered C-FIND with a data set that cannot be read")
    glance = await here.look()
    assert states(glance) == {State.PAUSED: 1, State.MISSING: 1}
    assert "cannot be read" in glance.error


async def test_the_newest_studies_come_first(desk: MakeDesk) -> None:
    here = desk(patience=AT_ONCE)
    for study, date in (("1", "20240301"), ("2", "20240303"), ("3", "20240302")):
        here.source.put(study, f"{study}.1", 1)
        here.source.dates[study] = date
    glance = await here.look()
    assert [one.study_instance_uid for one in wanted(glance)] == ["2", "3", "1"]
    assert glance.remarks == ["archive was asked", "a was asked"]


async def test_what_left_the_window_is_forgotten(desk: MakeDesk) -> None:
    here = full(desk())
    await here.look()
    assert set(here.memories) == {"1"}
    here.source.held.clear()
    assert (await here.look()).found == 0
    assert here.memories == {}
