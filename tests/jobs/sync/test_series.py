"""Which series a sync takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.sync.series import Selection, Series, Take

SERIES = st.lists(
    st.builds(
        Series,
        uid=st.integers(1, 30).map(lambda number: f"1.2.{number}"),
        count=st.integers(0, 6),
        modality=st.sampled_from(["CT", "MR", ""]),
        description=st.sampled_from(["T1 ax", "t2 cor", "Localizer", ""]),
    ),
    unique_by=lambda one: one.uid,
)
SELECTIONS = st.builds(
    Selection,
    take=st.sampled_from(Take),
    limit=st.integers(1, 6),
    modalities=st.sampled_from([(), ("ct",), ("C*", "MR")]),
    descriptions=st.sampled_from([(), ("t1*",), ("*o?a*", "T2*")]),
)


def test_all_takes_every_series_that_has_instances() -> None:
    series = [Series("1.1", 3), Series("1.2", 0), Series("1.3", 1)]
    assert list(Selection().chosen(series)) == ["1.1", "1.3"]


def test_smallest_takes_the_one_with_the_fewest_instances() -> None:
    series = [Series("1.1", 3), Series("1.2", 2), Series("1.3", 5), Series("1.4", 0)]
    assert list(Selection(Take.SMALLEST).chosen(series)) == ["1.2"]


def test_of_equally_small_series_the_textually_first_uid_is_taken() -> None:
    assert list(Selection(Take.SMALLEST).chosen([Series("1.9", 2), Series("1.10", 2)])) == ["1.10"]


def test_fewer_than_takes_every_series_below_the_limit() -> None:
    series = [Series("1.1", 9), Series("1.2", 10), Series("1.3", 1)]
    assert list(Selection(Take.FEWER_THAN, 10).chosen(series)) == ["1.1", "1.3"]


def test_filters_come_before_the_choice() -> None:
    series = [Series("1.1", 1, "SR"), Series("1.2", 30, "CT", "Thorax"), Series("1.3", 20, "ct ", "thin THORAX 1.0")]
    selection = Selection(Take.SMALLEST, modalities=("CT",), descriptions=("*thorax*",))
    assert list(selection.chosen(series)) == ["1.3"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("*", True), ("t1 a?", True), ("T1*", True), ("T1", False), ("T1 [ax]*", False), ("**x", True), ("?1*", True), ("", False)],
)
def test_a_pattern_has_only_the_two_wildcards(pattern: str, matches: bool) -> None:
    assert bool(Selection(descriptions=(pattern,)).chosen([Series("1.1", 1, "MR", "T1 ax")])) is matches


@given(SERIES, SELECTIONS)
def test_what_is_chosen_passes_the_filters_and_the_choice(series: list[Series], selection: Selection) -> None:
    candidates, chosen = selection.candidates(series), selection.chosen(series)
    assert set(chosen) <= {one.uid for one in candidates}
    match selection.take:
        case Take.ALL:
            assert len(chosen) == len(candidates)
        case Take.FEWER_THAN:
            assert set(chosen) == {one.uid for one in candidates if one.count < selection.limit}
        case Take.SMALLEST:
            assert len(chosen) == min(1, len(candidates))
            assert all(one.count <= other.count for one in chosen.values() for other in candidates)


@given(SERIES, SELECTIONS, st.randoms())
def test_the_order_in_which_a_source_lists_them_does_not_matter(series: list[Series], selection: Selection, random: object) -> None:
    before = set(selection.chosen(series))
    random.shuffle(series)  # type: ignore[attr-defined]
    assert set(selection.chosen(series)) == before
