"""Instances that a destination lacks: counts first, then UIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.sync.series import Series
from gateway.jobs.sync.shortfall import By, Lack, Sight, by_counts, comparable, instances_in, is_mixed, united, wanted
from gateway.retrieve import Wanted

LACKS = st.dictionaries(
    st.sampled_from(["1.1", "1.2", "1.3"]),
    st.none() | st.frozensets(st.sampled_from(["u1", "u2", "u3"]), min_size=1),
)


@pytest.mark.parametrize(
    ("held", "confirm", "excused", "by"),
    [
        ([], False, False, By.ABSENT),
        ([0], True, False, By.ABSENT),
        ([], False, True, By.UIDS),
        ([5], False, False, By.SAME),
        ([5], True, False, By.UIDS),
        ([4], False, False, By.UIDS),
        ([2], False, False, By.UIDS),
        ([6], False, False, By.UIDS),
        ([None], False, False, By.UIDS),
    ],
)
def test_counts_decide_where_they_can(held: list[int | None], confirm: bool, excused: bool, by: By) -> None:
    assert by_counts(5, held, confirm=confirm, excused=excused) is by


@given(st.lists(LACKS, max_size=3))
def test_what_several_destinations_lack_is_what_one_of_them_lacks(lacks: list[Lack]) -> None:
    union = united(lacks)
    assert set(union) == {uid for lack in lacks for uid in lack}
    for uid, uids in union.items():
        parts = [lack[uid] for lack in lacks if uid in lack]
        assert uids is None if None in parts else uids == frozenset().union(*(part for part in parts if part is not None))


def test_a_lack_of_whole_and_part_series_is_mixed() -> None:
    assert is_mixed({"1.1": None, "1.2": frozenset({"u1"})})
    assert not is_mixed({"1.1": None, "1.2": None})
    assert not is_mixed({"1.1": frozenset({"u1"})})


def test_what_is_lacking_is_asked_for_as_coarsely_as_it_is_known() -> None:
    assert wanted("1", {"1.1": None, "1.2": None}, whole=True) == Wanted("1")
    assert wanted("1", {"1.1": None}, whole=False) == Wanted("1", series=frozenset({"1.1"}))
    part: Lack = {"1.1": frozenset({"u1"}), "1.2": frozenset({"u2"})}
    assert wanted("1", part, whole=False) == Wanted("1", series=frozenset({"1.1", "1.2"}), instances=frozenset({"u1", "u2"}))


def test_lacks_are_told_apart_by_what_is_lacking_where() -> None:
    series = {"1.1": Series("1.1", 4)}
    grown = {"1.1": Series("1.1", 5)}
    assert instances_in({"1.1": None}, series) == 4
    assert comparable({"a": {"1.1": None}}, series) == comparable({"a": {"1.1": None}}, series)
    assert comparable({"a": {"1.1": None}}, series) != comparable({"a": {"1.1": None}}, grown)
    assert comparable({"a": {"1.1": None}}, series) != comparable({"b": {"1.1": None}}, series)


def test_a_sight_knows_whether_its_counts_say_anything() -> None:
    assert Sight(3, {"a": 3}).equal
    assert not Sight(3, {"a": 3, "b": 2}).equal
    assert not Sight(None, {"a": None}).equal
    assert not Sight(3, {"a": None}).counted
