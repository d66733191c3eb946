"""The first request, the next attempts, and the time that arrivals are waited for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.domain import Basis
from gateway.retrieve.recovery import (
    CHUNK,
    MAX_ROUNDS,
    SPLIT_AT,
    Backoff,
    End,
    Level,
    Patience,
    Round,
    Step,
    Target,
    Way,
    class_lessons,
    class_orders,
    first_targets,
    lesson,
    next_step,
    targets,
)
from gateway.retrieve.verdict import Expectation

J2K, PLAIN, ITS_OWN, LOSSY = "j2k-first", "uncompressed-first", "as-proposed", "compressed-first"


def study(**series: int) -> Expectation:
    listed = {f"1.{name}.{number}": name for name, count in series.items() for number in range(count)}
    return Expectation(Basis.UIDS, len(listed), listed, tuple(series))


def first(*, gained: int = 0, end: End = End.ANSWERED, failed: int = 0) -> Round:
    return Round(Step(Way.FIRST, J2K), end, gained, failed)


def ladder(rounds: list[Round], missing: int, **more: object) -> list[Step]:
    """Every step that is taken when none of them gains anything."""
    steps, rounds = [], list(rounds)
    while (step := next_step(rounds, missing, basis=Basis.UIDS, **more)) is not None:  # type: ignore[arg-type]
        steps.append(step)
        rounds.append(Round(step, End.ANSWERED, 0))
    return steps


def test_a_study_is_asked_for_as_a_whole() -> None:
    expectation = study(a=3, b=2)

    assert first_targets("S", expectation, set(expectation.listed)) == (Target(Level.STUDY, "S"),)


def test_a_large_study_is_asked_for_series_by_series() -> None:
    expectation = study(a=SPLIT_AT, b=1)

    assert first_targets("S", expectation, set(expectation.listed)) == (
        Target(Level.SERIES, "S", "a"),
        Target(Level.SERIES, "S", "b"),
    )


def test_what_is_here_already_is_not_asked_for() -> None:
    expectation = study(a=3, b=2, c=1)

    asked = first_targets("S", expectation, {"1.a.1", "1.b.0", "1.b.1"})

    assert asked == (Target(Level.IMAGE, "S", "a", ("1.a.1",)), Target(Level.SERIES, "S", "b"))


def test_a_study_known_by_counts_is_asked_for_as_a_whole() -> None:
    assert first_targets("S", Expectation(Basis.COUNTS, 4, {}, ("a",)), ()) == (Target(Level.STUDY, "S"),)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(1, 250), min_size=1), st.randoms(use_true_random=False))
def test_instances_are_asked_for_once_each_in_bounded_lists_of_one_series(sizes: dict[str, int], chance: object) -> None:
    expectation = study(**sizes)
    missing = {uid for uid in expectation.listed if chance.random() < 0.7}  # type: ignore[attr-defined]

    asked = targets(Step(Way.IMAGE, J2K), "S", expectation, missing)

    assert sorted(uid for target in asked for uid in target.uids) == sorted(missing)
    assert all(0 < len(target.uids) <= CHUNK for target in asked)
    assert all(expectation.listed[uid] == target.series for target in asked for uid in target.uids)


def test_incomplete_series_are_asked_for_or_all_when_judged_by_counts() -> None:
    expectation = study(a=2, b=2)

    assert targets(Step(Way.SERIES, J2K), "S", expectation, ["1.b.0"]) == (Target(Level.SERIES, "S", "b"),)
    by_counts = Expectation(Basis.COUNTS, 4, {}, ("a", "b"))
    assert len(targets(Step(Way.SERIES, J2K), "S", by_counts, ())) == 2


def test_repairs_go_from_instances_to_series_to_the_other_order() -> None:
    assert ladder([first(gained=5)], 3) == [
        Step(Way.IMAGE, J2K),
        Step(Way.SINGLY, J2K),
        Step(Way.SERIES, J2K),
        Step(Way.IMAGE, PLAIN),
        Step(Way.SINGLY, PLAIN),
        Step(Way.SERIES, PLAIN),
        Step(Way.IMAGE, ITS_OWN),
        Step(Way.SINGLY, ITS_OWN),
        Step(Way.SERIES, ITS_OWN),
    ]


def test_what_failed_is_asked_for_in_each_order_before_in_smaller_pieces() -> None:
    rounds = [first(gained=5, failed=3)]
    steps = []
    while (step := next_step(rounds, 3, basis=Basis.UIDS)) is not None and len(steps) < 3:
        steps.append(step)
        rounds.append(Round(step, End.ANSWERED, 0, failed=3))

    assert steps == [Step(Way.IMAGE, J2K), Step(Way.IMAGE, PLAIN), Step(Way.IMAGE, ITS_OWN)]


def test_unfit_instances_are_asked_for_together_once_in_each_order() -> None:
    rounds = [Round(Step(Way.FIRST, J2K), End.ANSWERED, 5, unfit=3)]
    steps = []
    while (step := next_step(rounds, 3, basis=Basis.UIDS)) is not None:
        steps.append(step)
        rounds.append(Round(step, End.ANSWERED, 0, unfit=3))

    assert steps == [Step(Way.IMAGE, PLAIN), Step(Way.IMAGE, ITS_OWN), Step(Way.IMAGE, J2K)]


def test_a_study_that_counts_more_than_it_lists_is_asked_for_whole() -> None:
    expectation = replace(study(a=3), counted=4)

    assert first_targets("S", expectation, ()) == (Target(Level.STUDY, "S"),)
    assert first_targets("S", study(a=3), ()) == ()


def test_a_single_missing_instance_is_not_asked_for_singly_again() -> None:
    assert Step(Way.SINGLY, J2K) not in ladder([first(gained=5)], 1)


def test_series_level_is_left_out_once_image_level_succeeded() -> None:
    rounds = [first(gained=5), Round(Step(Way.IMAGE, J2K), End.ANSWERED, 2)]

    assert {step.way for step in ladder(rounds, 40)} == {Way.IMAGE}


def test_failed_sub_operations_suggest_the_other_order_sooner() -> None:
    rounds = [first(gained=5, failed=3), Round(Step(Way.IMAGE, J2K), End.ANSWERED, 0, failed=3)]

    assert next_step(rounds, 3, basis=Basis.UIDS) == Step(Way.IMAGE, PLAIN)


def test_lossy_syntaxes_are_preferred_only_after_every_other_order_failed() -> None:
    rounds = [first(failed=3), Round(Step(Way.IMAGE, J2K), End.ANSWERED, 0, failed=3)]
    assert next_step(rounds, 3, basis=Basis.UIDS) == Step(Way.IMAGE, PLAIN)
    rounds.append(Round(Step(Way.IMAGE, PLAIN), End.ANSWERED, 0, failed=3))
    assert next_step(rounds, 3, basis=Basis.UIDS) == Step(Way.IMAGE, ITS_OWN)
    rounds.append(Round(Step(Way.IMAGE, ITS_OWN), End.ANSWERED, 0, failed=3))

    assert next_step(rounds, 3, basis=Basis.UIDS) == Step(Way.IMAGE, LOSSY)
    assert lesson([*rounds, Round(Step(Way.IMAGE, LOSSY), End.ANSWERED, 3)]) is None


def test_a_source_known_to_need_both_orders_gets_the_other_one_next() -> None:
    assert next_step([first(gained=5)], 3, basis=Basis.UIDS, both_orders=True) == Step(Way.IMAGE, PLAIN)


def test_a_step_that_gained_is_taken_again_but_not_for_ever() -> None:
    rounds = [first(gained=5)]
    for _ in range(3):
        assert next_step(rounds, 9, basis=Basis.UIDS) == Step(Way.IMAGE, J2K)
        rounds.append(Round(Step(Way.IMAGE, J2K), End.ANSWERED, 1))

    assert next_step(rounds, 9, basis=Basis.UIDS) != Step(Way.IMAGE, J2K)


def test_nothing_is_tried_after_a_refusal_or_with_nothing_missing() -> None:
    assert next_step([first(gained=5)], 0, basis=Basis.UIDS) is None
    assert next_step([first(end=End.REFUSED)], 5, basis=Basis.UIDS) is None


def test_a_source_that_is_away_is_asked_three_times() -> None:
    rounds = [first(end=End.BROKEN)]
    assert next_step(rounds, 5, basis=Basis.UIDS) == Step(Way.FIRST, J2K)
    rounds += [first(end=End.BROKEN)] * 2

    assert next_step(rounds, 5, basis=Basis.UIDS) is None


@given(
    st.lists(st.tuples(st.sampled_from([End.ANSWERED, End.STALLED, End.BROKEN, End.BUSY]), st.integers(0, 3)), max_size=40),
    st.integers(1, 200),
    st.sampled_from(Basis),
)
def test_repairing_ends_whatever_the_source_does(behaviour: list[tuple[End, int]], missing: int, basis: Basis) -> None:
    rounds = [first()]
    for end, gained in [*behaviour, *[(End.ANSWERED, 1)] * 40]:
        step = next_step(rounds, missing, basis=basis)
        if step is None:
            return
        rounds.append(Round(step, end, gained))

    assert len(rounds) <= MAX_ROUNDS


def test_with_counts_series_then_the_study_then_the_other_order_are_tried() -> None:
    rounds = [first(gained=2)]
    steps = []
    while (step := next_step(rounds, 2, basis=Basis.COUNTS)) is not None:
        steps.append(step)
        rounds.append(Round(step, End.ANSWERED, 0))

    assert steps == [Step(Way.SERIES, J2K), Step(Way.STUDY, J2K), Step(Way.SERIES, PLAIN), Step(Way.STUDY, PLAIN)]


def test_an_order_that_works_where_the_usual_one_does_not_is_learned() -> None:
    swapped = Round(Step(Way.IMAGE, PLAIN), End.ANSWERED, 4)

    assert lesson([first(), swapped]) == PLAIN
    assert lesson([first(gained=3), swapped]) == "both"
    assert lesson([first(gained=3), Round(Step(Way.IMAGE, J2K), End.ANSWERED, 4)]) is None
    assert lesson([first(), Round(Step(Way.IMAGE, ITS_OWN), End.ANSWERED, 4)]) == ITS_OWN


def test_an_order_that_works_for_one_sop_class_is_learned_for_that_one() -> None:
    usual = Round(Step(Way.FIRST, J2K), End.ANSWERED, 3, classes=frozenset({"CT"}))
    dose = Round(Step(Way.IMAGE, ITS_OWN), End.ANSWERED, 1, classes=frozenset({"RTDOSE"}))
    more = Round(Step(Way.IMAGE, PLAIN), End.ANSWERED, 2, classes=frozenset({"CT", "SC"}))

    assert (lesson([usual, dose]), class_lessons([usual, dose])) == (None, {"RTDOSE": ITS_OWN})
    assert (lesson([usual, more]), class_lessons([usual, more])) == ("both", {"SC": PLAIN})
    assert (lesson([first(), dose]), class_lessons([first(), dose])) == (ITS_OWN, {"RTDOSE": ITS_OWN})
    assert class_lessons([usual]) == {}


def test_orders_of_sop_classes_are_read_as_far_as_they_can_be() -> None:
    assert class_orders('{"1.2": "as-proposed", "1.3": "sideways", "1.4": 7}') == {"1.2": ITS_OWN}
    assert [class_orders(text) for text in (None, "", "[", "[1]", "7")] == [{}] * 5


@given(st.integers(1, 40), st.floats(0, 1))
def test_waiting_doubles_is_capped_and_ends(attempt: int, jitter: float) -> None:
    backoff = Backoff(first_s=1, max_s=60, tries=8)
    pause = backoff.delay(attempt, jitter)

    if attempt >= 8:
        assert pause is None
    else:
        ceiling = min(60, 2 ** (attempt - 1))
        assert pause is not None
        assert ceiling / 2 <= pause <= ceiling


def pause(patience: Patience, *, quiet_s: float, missing: int | None = 5, claims_more: bool = False, **more: bool) -> float:
    known = {"asynchronous": False, "disproved": False, **more}
    return patience.pause(missing=missing, claims_more=claims_more, quiet_s=quiet_s, **known)


def test_arrivals_are_waited_for_until_they_are_quiet() -> None:
    patience = Patience(settle_s=2, progress_s=120)

    assert pause(patience, quiet_s=0.5) == 1.5
    assert pause(patience, quiet_s=2) == 0
    assert pause(patience, quiet_s=0, missing=None) == 2


def test_nothing_is_waited_for_when_all_came() -> None:
    assert pause(Patience(2, 120), quiet_s=0, missing=0, claims_more=True) == 0


def test_a_source_that_claims_more_gets_time_until_it_was_disproved() -> None:
    patience = Patience(settle_s=2, progress_s=120)

    assert pause(patience, quiet_s=0, claims_more=True) == 30
    assert pause(patience, quiet_s=0, claims_more=True, disproved=True) == 2
    assert pause(patience, quiet_s=0, claims_more=True, asynchronous=True) == 120
    assert pause(patience, quiet_s=0, claims_more=True, asynchronous=True, disproved=True) == 30
