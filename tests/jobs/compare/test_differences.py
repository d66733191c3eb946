"""Differences of two sides, and their repair: nothing is missed, nothing is made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.archives.places import SeriesHeld, StudyHeld
from gateway.jobs.compare import Difference, Kind, Repair
from gateway.jobs.compare.differences import of_instances, of_series, of_studies, relevant
from gateway.jobs.compare.repair import Fetch, directions, fetches
from gateway.retrieve import Wanted

uids = st.sets(st.integers(1, 12).map(lambda number: f"1.2.{number}"))
counted = st.dictionaries(st.integers(1, 8).map(lambda number: f"1.2.{number}"), st.one_of(st.none(), st.integers(0, 3)))


@given(uids, uids)
def test_instances_of_one_side_only_are_reported_once_for_that_side(a: set[str], b: set[str]) -> None:
    found = list(of_instances("1.2", "1.3", a, b))
    only = {kind: {one.instance for one in found if one.kind is kind} for kind in (Kind.ONLY_A, Kind.ONLY_B)}
    assert (only[Kind.ONLY_A], only[Kind.ONLY_B]) == (a - b, b - a)
    assert len(found) == len(a ^ b)


@given(counted, counted)
def test_studies_and_series_differ_by_absence_or_by_count(a: dict[str, int | None], b: dict[str, int | None]) -> None:
    wanted = {(Kind.ONLY_A, uid) for uid in a.keys() - b.keys()} | {(Kind.ONLY_B, uid) for uid in b.keys() - a.keys()}
    more = {(Kind.COUNT, uid) for uid in a.keys() & b.keys() if None not in (a[uid], b[uid]) and a[uid] != b[uid]}
    left, right = ({uid: StudyHeld(uid, None, count) for uid, count in side.items()} for side in (a, b))
    assert {(one.kind, one.study) for one in of_studies(left, right, counts=True)} == wanted | more
    assert {(one.kind, one.study) for one in of_studies(left, right, counts=False)} == wanted
    below, beside = ({uid: SeriesHeld(uid, count) for uid, count in side.items()} for side in (a, b))
    assert {(one.kind, one.series) for one in of_series("1", below, beside, counts=True)} == wanted | more


def test_what_is_missing_at_a_side_that_is_ignored_does_not_count() -> None:
    one, other = Difference(Kind.ONLY_A, "1.2"), Difference(Kind.ONLY_B, "1.3")
    assert (relevant(one, "b"), relevant(one, "a"), relevant(one, "")) == (False, True, True)
    assert (relevant(other, "b"), relevant(other, "a")) == (True, False)
    assert relevant(Difference(Kind.CONTENT, "1.2"), "a")


FOUND = [
    Difference(Kind.ONLY_A, "1"),
    Difference(Kind.ONLY_A, "2", "2.1"),
    Difference(Kind.ONLY_A, "2", "2.2", "2.2.1"),
    Difference(Kind.ONLY_B, "3", "3.1", "3.1.1"),
    Difference(Kind.CONTENT, "4", "4.1", "4.1.1"),
    Difference(Kind.COUNT, "5", "5.1", a=3, b=4),
    Difference(Kind.UNKNOWN, "6"),
]


def test_what_is_missing_is_fetched_and_nothing_else_of_its_study() -> None:
    assert fetches(FOUND, Kind.ONLY_A, overwrite=True) == [
        Fetch(Wanted("1")),
        Fetch(Wanted("2", series=frozenset({"2.1"}))),
        Fetch(Wanted("2", instances=frozenset({"2.2.1"}))),
        Fetch(Wanted("4", instances=frozenset({"4.1.1"}))),
        Fetch(Wanted("5"), skip_existing=True),
    ]
    assert fetches(FOUND, Kind.ONLY_B, overwrite=False) == [
        Fetch(Wanted("3", instances=frozenset({"3.1.1"}))),
        Fetch(Wanted("5"), skip_existing=True),
    ]


def test_a_repair_goes_the_ways_that_it_names() -> None:
    assert [directions(repair) for repair in Repair] == [(Kind.ONLY_A,), (Kind.ONLY_B,), (Kind.ONLY_A, Kind.ONLY_B)]
