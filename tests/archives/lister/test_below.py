"""Series and instances at archives that cut their answers short: all are listed, or it is said that they may not be."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archives.lister import Evidence, InstanceLister, Knowledge, Listing, PresenceLister, SeriesLister, list_all
from gateway.core.domain import Basis
from gateway.retrieve.listing import list_study
from gateway.retrieve.request import Wanted
from tests.archives.lister.scripted import Archive, Image, series, study

CAPS = (1, 10)
WAYS: dict[str, dict[str, Any]] = {
    "numbers only": {},
    "number ranges": {"ranges": True},
    "UID wild cards": {"uid_wild": True, "numbers": False},
    "all of it": {"ranges": True, "uid_wild": True},
    "refuses wild cards": {"refuses_wild": True},
    "numbers are not told": {"tells_numbers": False},
}
"""By what an archive can be asked for parts of a series."""

SAYS: dict[str, dict[str, Any]] = {
    "silently": {},
    "FE00": {"says": 0xFE00},
    "A700 at once": {"too_much": 0xA700},
}


def instances(archive: Archive, counted: int | None, evidence: Evidence | None = None, **more: Any) -> Listing:
    lister = InstanceLister("1.2.3", "1.2.3.1", evidence or Evidence(), counted=counted, **more)
    return list_all(lister, archive)


def uids(images: Collection[Image]) -> set[str]:
    return {image.uid for image in images}


def shuffled(images: Sequence[Image], seed: int = 1) -> list[Image]:
    return random.Random(seed).sample(list(images), len(images))


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cap", CAPS)
def test_a_counted_series_is_listed_whole_behind_a_cap(cap: int, way: str, says: str) -> None:
    images = shuffled(series(18))
    archive = Archive(images, {"IMAGE": cap}, **WAYS[way], **SAYS[says])
    listing = instances(archive, len(images))
    assert (set(listing.found), listing.doubt) == (uids(images), "")


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cap", CAPS)
def test_a_series_without_a_count_is_listed_whole_or_doubted(cap: int, way: str, says: str) -> None:
    images = shuffled(series(18))
    archive = Archive(images, {"IMAGE": cap}, counts=False, **WAYS[way], **SAYS[says])
    evidence = Evidence()
    for _ in range(5):
        # A small answer that nothing contradicts is suspected once it came again and again.
        listing = instances(archive, None, evidence)
    assert set(listing.found) == uids(images) or listing.doubt


@pytest.mark.parametrize("status", [0xFE00, 0xA700, 0xB001])
@pytest.mark.parametrize("cap", [2, 9, 100])
def test_other_caps_and_statuses_are_got_around(cap: int, status: int) -> None:
    images = shuffled(series(130))
    archive = Archive(images, {"IMAGE": cap}, says=status)
    listing = instances(archive, 130)
    assert (set(listing.found), listing.doubt) == (uids(images), "")


@pytest.mark.parametrize("cap", CAPS)
def test_what_cannot_be_asked_for_is_said_with_its_numbers(cap: int) -> None:
    images = series(150)
    archive = Archive(images, {"IMAGE": cap}, numbers=False, ignores=frozenset({"InstanceNumber"}))
    listing = instances(archive, 150)
    assert listing.doubt == f"the source lists fewer than it counts: counted 150, listed {cap}"
    assert listing.counted == 150


def test_a_series_that_is_listed_as_it_is_counted_costs_one_query() -> None:
    archive = Archive(series(500))
    assert instances(archive, 500).queries == 1


def test_series_without_counts_cost_a_few_queries_once() -> None:
    evidence = Evidence()
    queries = [instances(Archive(series(30)), None, evidence).queries for _ in range(20)]
    assert queries[0] <= 6
    assert sum(queries) <= 20 + 5 * 5
    assert [instances(Archive(series(count)), None, evidence).queries for count in (1, 5, 29)] == [1, 1, 1]


def test_a_count_that_lies_costs_a_bounded_number_of_queries() -> None:
    archive = Archive(series(200))
    listing = instances(archive, 201)
    assert (len(listing.found), listing.doubt) == (200, "the source lists fewer than it counts: counted 201, listed 200")
    assert listing.queries < 80


def test_what_was_looked_into_before_is_not_looked_into_again() -> None:
    images = series(15)
    archive = Archive(images, {"IMAGE": 10})
    before = instances(archive, 15)
    again = instances(archive, 15, known=tuple(before.found))
    assert (set(again.found), again.doubt) == (uids(images), "")
    assert again.queries < 4


def test_instances_with_equal_or_no_numbers_are_found_or_cause_doubt() -> None:
    twins = [Image("1.2.3", "1.2.3.1", f"1.2.3.1.9.{n}", number=n, series_number=1) for n in range(1, 11)]
    images = shuffled([*series(10), *twins])
    assert set(instances(Archive(images, {"IMAGE": 15}), 20).found) == uids(images)
    unnumbered = [Image("1.2.3", "1.2.3.1", f"1.2.3.1.8.{n}", series_number=1) for n in range(10)]
    listing = instances(Archive([*series(10), *unnumbered], {"IMAGE": 10}), 20)
    assert "counted 20, listed 10" in listing.doubt


def test_instances_with_gaps_in_their_numbers_are_found() -> None:
    images = shuffled([*series(8, first=0), *series(8, first=20), *series(8, first=41)])
    assert set(instances(Archive(images, {"IMAGE": 10}), 24).found) == uids(images)


def test_series_with_uids_of_several_roots_are_found_by_their_uids() -> None:
    images = [Image("1.2.3", "1.2.3.1", f"{root}.{n}") for root in ("1.2.840.7.9", "1.2.840.77", "2.25.4") for n in range(12)]
    archive = Archive(shuffled(images), {"IMAGE": 10}, numbers=False, uid_wild=True)
    listing = instances(archive, 36)
    assert (set(listing.found), listing.doubt) == (uids(images), "")


def all_series(archive: Archive, **more: Any) -> Listing:
    return list_all(SeriesLister("1.2.3", Evidence(), **more), archive)


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cap", CAPS)
def test_the_series_of_a_study_are_listed_whole_behind_a_cap(cap: int, way: str, says: str) -> None:
    images = shuffled(study([2] * 14))
    archive = Archive(images, {"SERIES": cap}, **WAYS[way], **SAYS[says])
    listing = all_series(archive, instances=28)
    assert len(listing.found) == 14
    assert listing.doubt == ""


def test_series_with_odd_numbers_are_found_by_instance_and_modality() -> None:
    numbers = (1, 2, 3, 4001, 80007, 100001)
    images = [
        Image("1.2.3", f"1.2.3.{number}", f"1.2.3.{number}.1", number=1, series_number=number, modality=modality)
        for number, modality in zip(numbers, ("CT", "CT", "MR", "SR", "SEG", "PR"), strict=True)
    ]
    for more in ({"relational": True}, {"relational": False}):
        archive = Archive(images, {"SERIES": 2}, **more)  # type: ignore[arg-type]
        assert len(all_series(archive, instances=6).found) == 6


def test_a_study_that_lists_what_it_counts_costs_one_series_query() -> None:
    assert all_series(Archive(study([3, 2])), instances=5).queries == 1
    assert all_series(Archive(study([3, 2])), series=2).queries == 1


def test_a_study_of_one_series_without_counts_is_looked_into_once() -> None:
    knowledge = Knowledge()
    found = [list_all(SeriesLister("1.2.3", knowledge.at("SERIES")), Archive(study([5]))).queries for _ in range(3)]
    assert found[0] == 2
    assert sum(found) <= 6


def test_series_that_are_named_are_asked_for_by_their_uids() -> None:
    archive = Archive(study([1] * 5), {"SERIES": 2}, counts=False, numbers=False, ignores=frozenset({"SeriesNumber", "Modality"}))
    listing = all_series(archive, named=("1.2.3.5", "1.2.3.4"))
    assert {"1.2.3.5", "1.2.3.4"} <= set(listing.found)


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("cap", [None, 1, 2, 10, 100])
def test_instances_are_asked_for_by_uid_whatever_the_cap(cap: int | None, lists: bool) -> None:
    images = series(60)
    archive = Archive(images, {} if cap is None else {"IMAGE": cap}, uid_lists=lists)
    named = [*uids(images), "1.2.3.1.99", "1.2.3.1.98"]
    for known in ("", images[0].uid):
        lister = PresenceLister("1.2.3", "1.2.3.1", Evidence(), named=named, known=known)
        assert set(list_all(lister, archive).found) == uids(images)


def test_what_is_not_there_costs_a_query_for_fifty() -> None:
    evidence = Evidence(most=10)
    archive = Archive(series(10))
    absent = [f"1.2.3.1.{n}" for n in range(100, 200)]
    lister = PresenceLister("1.2.3", "1.2.3.1", evidence, named=absent, known="1.2.3.1.1")
    listing = list_all(lister, archive)
    assert (set(listing.found) - {"1.2.3.1.1"}, listing.queries) == (set(), 2)


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
@pytest.mark.parametrize("cap", CAPS)
def test_a_study_behind_a_cap_is_expected_whole(cap: int, level: str) -> None:
    images = study([25, 3, 1])
    found = list_study(Archive(images, {level: cap}), Wanted("1.2.3", len(images)))
    assert (found.basis, set(found.listed), found.doubt) == (Basis.UIDS, uids(images), "")


def test_a_study_that_stays_short_is_doubted_in_its_expectation() -> None:
    images = study([25])
    archive = Archive(images, {"IMAGE": 10}, numbers=False, ignores=frozenset({"InstanceNumber"}))
    found = list_study(archive, Wanted("1.2.3", 25))
    assert "counted 25, listed 10" in found.doubt


def test_instances_of_a_part_that_a_cap_hides_are_asked_for_by_uid() -> None:
    images = study([25, 25])
    archive = Archive(images, {"IMAGE": 10}, counts=False, numbers=False, ignores=frozenset({"InstanceNumber"}))
    wanted = frozenset({"1.2.3.1.20", "1.2.3.2.21", "1.2.3.2.1"})
    found = list_study(archive, Wanted("1.2.3", instances=wanted))
    assert set(found.listed) == wanted


archives = st.builds(
    Archive,
    st.lists(st.integers(1, 16), min_size=1, max_size=5).flatmap(lambda counts: st.permutations(study(counts))),
    st.fixed_dictionaries({}, optional={"SERIES": st.integers(1, 12), "IMAGE": st.integers(1, 12)}),
    says=st.sampled_from([None, 0xFE00, 0xA700, 0xB001]),
    counts=st.just(True),
    numbers=st.booleans(),
    ranges=st.booleans(),
    uid_wild=st.booleans(),
    uid_lists=st.booleans(),
    relational=st.booleans(),
    refuses_wild=st.booleans(),
    tells_numbers=st.booleans(),
    ignores=st.sets(st.sampled_from(["InstanceNumber", "SeriesNumber", "Modality"])).map(frozenset),
)


@settings(max_examples=30)
@given(archives)
def test_an_archive_that_counts_lists_all_or_is_doubted(archive: Archive) -> None:
    found = list_study(archive, Wanted("1.2.3", len(archive.images)))
    assert set(found.listed) <= uids(archive.images)
    assert set(found.listed) == uids(archive.images) or found.doubt or found.basis is Basis.COUNTS
    assert len(archive.asked) < 6000
