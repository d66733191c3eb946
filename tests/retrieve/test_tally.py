"""Expected against received, and the verdict: by sets of UIDs, never by a status."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.domain import Basis, VerdictKind
from gateway.retrieve.verdict import Expectation, grown, judge, tally

uids = st.sets(st.sampled_from([f"1.2.{number}" for number in range(30)]))


def listing(*names: str, series: str = "1.2") -> Expectation:
    return Expectation(Basis.UIDS, len(names), dict.fromkeys(names, series), (series,))


@given(uids, uids, uids)
def test_expected_instances_are_each_received_skipped_or_missing(listed: set[str], received: set[str], skipped: set[str]) -> None:
    result = tally(listing(*sorted(listed)), received, skipped)

    assert set(result.missing) == listed - received - skipped
    assert result.received + len(result.missing) == len(listed - skipped)
    assert set(result.unexpected) == received - listed
    assert result.whole == (listed <= received | skipped)


@given(uids, uids)
def test_complete_is_said_exactly_when_what_is_listed_is_here_and_no_more(listed: set[str], received: set[str]) -> None:
    expectation = listing(*sorted(listed))

    kind, _ = judge(expectation, tally(expectation, received), trouble=["whatever the source said"])

    assert (kind is VerdictKind.COMPLETE) == (bool(listed) and listed == received)


def test_duplicates_do_not_stand_in_for_missing_instances() -> None:
    expectation = listing("1", "2", "3")

    result = tally(expectation, ["1", "1", "1"])

    assert (result.received, result.missing) == (1, ("2", "3"))


def test_nothing_listed_and_nothing_received_is_empty() -> None:
    expectation = listing()

    assert judge(expectation, tally(expectation, []))[0] is VerdictKind.EMPTY


def test_nothing_received_of_a_listed_study_is_failed_with_the_trouble() -> None:
    expectation = listing("1")

    kind, note = judge(expectation, tally(expectation, []), trouble=["the source answered C000"])

    assert (kind, note) == (VerdictKind.FAILED, "the source answered C000")


def test_trouble_that_was_repaired_is_not_mentioned() -> None:
    expectation = listing("1")

    assert judge(expectation, tally(expectation, ["1"]), trouble=["the source answered C000"]) == (VerdictKind.COMPLETE, "")


def test_an_unlisted_arrival_makes_a_whole_study_incomplete() -> None:
    expectation = listing("1")

    kind, note = judge(expectation, tally(expectation, ["1", "9"]))

    assert (kind, note) == (VerdictKind.INCOMPLETE, "1 instance came that the source does not list")


def test_instances_beside_the_part_that_is_wanted_are_only_mentioned() -> None:
    expectation = replace(listing("1"), whole_study=False)

    kind, note = judge(expectation, tally(expectation, ["1", "9"]))

    assert (kind, note) == (VerdictKind.COMPLETE, "1 instance came that the source does not list")


@given(st.integers(0, 40), uids)
def test_a_study_that_counts_more_than_it_lists_is_never_complete(counted: int, listed: set[str]) -> None:
    expectation = replace(listing(*sorted(listed)), counted=counted)

    kind, note = judge(expectation, tally(expectation, listed))

    assert (kind is VerdictKind.COMPLETE) == (bool(listed) and counted <= len(listed))
    assert ("the source lists fewer than it counts" in note) == (counted > len(listed))


def test_what_came_unfit_is_missing_and_named_with_its_reason() -> None:
    expectation = listing("1", "2", "3")
    unfit = {"2": "inside another study", "3": "inside another study"}

    result = tally(expectation, ["1"], (), unfit)

    assert (result.missing, result.received, result.short) == (("2", "3"), 1, 2)
    assert judge(expectation, result) == (VerdictKind.INCOMPLETE, "2 instances came inside another study")


def test_nothing_but_unfit_instances_is_failed() -> None:
    expectation = listing("1")

    kind, note = judge(expectation, tally(expectation, [], (), {"1": "in another transfer syntax than the source has"}))

    assert (kind, note) == (VerdictKind.FAILED, "1 instance came in another transfer syntax than the source has")


def test_with_counts_alone_the_number_of_distinct_instances_decides() -> None:
    expectation = Expectation(Basis.COUNTS, 3, {}, ("1.2",), ("judged by its counts",))

    assert judge(expectation, tally(expectation, ["1", "2", "3"])) == (VerdictKind.COMPLETE, "judged by its counts")
    assert judge(expectation, tally(expectation, ["1", "2"]))[0] is VerdictKind.INCOMPLETE
    assert tally(expectation, ["1"]).short == 2


def test_with_counts_a_uid_that_is_listed_must_have_come_too() -> None:
    expectation = Expectation(Basis.COUNTS, 3, {"1": "1.2"}, ("1.2",))

    result = tally(expectation, ["7", "8", "9"])

    assert (result.whole, result.missing) == (False, ("1",))


def test_without_any_number_nothing_proves_completeness() -> None:
    expectation = Expectation(Basis.COUNTS, None, {})

    kind, note = judge(expectation, tally(expectation, ["1", "2"]))

    assert kind is VerdictKind.INCOMPLETE
    assert "nothing proves" in note


def test_a_study_that_has_grown_expects_the_union() -> None:
    again = grown(listing("1", "2"), listing("2", "3"))

    assert (list(again.listed), again.count) == (["1", "2", "3"], 3)
    assert again.notes == ("the source no longer lists 1 instance that it listed at first",)


def test_a_study_that_stayed_as_it_was_is_the_same_expectation() -> None:
    assert grown(listing("1", "2"), listing("2", "1")) == listing("1", "2")


def test_uids_that_are_listed_later_take_the_place_of_counts() -> None:
    again = grown(Expectation(Basis.COUNTS, 2, {}, ("1.2",)), listing("1", "2", "3"))

    assert (again.basis, again.count) == (Basis.UIDS, 3)
