"""Listing the studies of a day at a source that cuts its answers short: all are found, or it is said that they may not be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archives.lister import Answer, Evidence, Knowledge, StudyLister
from gateway.archives.lister import studies as listing
from gateway.archives.lister.parts import CHARACTERS, seconds_of
from tests.archives.lister.cutting import DAY, Cutting, Says, Study, listed, uids


def studies(count: int, *, time: str | None = None, patient_id: str | None = None, name: str = "") -> list[Study]:
    """So many studies, spread over the day, of patients numbered as hospitals do."""
    return [
        Study(
            f"1.2.{number}",
            1,
            time=f"{number * 251 % 86_400 // 3600:02d}{number * 7 % 60:02d}{number * 13 % 60:02d}" if time is None else time,
            patient_id=f"HOSP-{number:06d}" if patient_id is None else patient_id,
            patient_name=name,
        )
        for number in range(count)
    ]


def _others(count: int) -> list[Study]:
    """So many studies of other days."""
    return [replace(study, study_instance_uid=f"1.3.{number}") for number, study in enumerate(studies(count))]


@pytest.mark.parametrize("says", ["nothing", "cut", "refuses"])
def test_all_studies_of_a_day_are_found_behind_a_cap(says: Any) -> None:
    source = Cutting(studies(350), cap=100, says=says)
    assert set(listed(source).found) == uids(source.studies)
    assert listed(source).doubt == ""


def test_a_known_cap_that_is_not_reached_costs_one_query() -> None:
    source = Cutting(studies(99), cap=100)
    assert listed(source, Evidence(cap=100)).queries == 1


def test_a_source_that_gave_more_before_is_asked_once() -> None:
    source, evidence = Cutting(studies(80)), Evidence(most=81)
    assert listed(source, evidence).queries == 1


def test_a_source_that_says_when_it_cuts_is_believed_when_it_does_not() -> None:
    evidence = Evidence()
    listed(Cutting(studies(250), cap=100, says="cut"), evidence)
    assert evidence.tells
    assert listed(Cutting(studies(100), cap=100, says="cut"), evidence).queries == 1


def test_an_answer_size_seen_whole_before_costs_five_queries() -> None:
    evidence = Evidence()
    first = listed(Cutting(studies(200)), evidence)
    assert first.doubt == ""
    assert evidence.cap is None
    again = listed(Cutting(studies(200)), evidence)
    assert (again.queries, again.doubt) == (5, "")


@pytest.mark.parametrize("says", ["nothing", "cut", "refuses"])
def test_a_source_that_gives_more_for_the_days_around_did_not_cut_the_day(says: Any) -> None:
    evidence = Evidence()
    source = Cutting(studies(200), cap=300, says=says, around=_others(1))
    result = listed(source, evidence)
    assert (set(result.found), result.queries, result.doubt) == (uids(source.studies), 2, "")
    assert listed(source, evidence).queries == 1


@pytest.mark.parametrize("says", ["nothing", "cut", "refuses"])
def test_a_cap_is_found_out_whatever_is_around(says: Any) -> None:
    source = Cutting(studies(350), cap=100, says=says, around=_others(150))
    result = listed(source)
    assert (set(result.found), result.doubt) == (uids(source.studies), "")


def test_a_key_that_is_no_day_has_no_days_around_it() -> None:
    for key in ("99999999", "00010101", "2024"):
        lister = StudyLister({"StudyDate": key}, Evidence())
        lister.feed(Answer([study.match() for study in studies(20)], 20))
        assert lister.query is not None
        assert lister.query.keys["StudyDate"] == key


def test_a_cap_of_the_size_that_was_whole_before_is_found_out() -> None:
    evidence = Evidence()
    listed(Cutting(studies(100), cap=100), evidence)
    source = Cutting(studies(350), cap=100)
    result = listed(source, evidence)
    assert set(result.found) == uids(source.studies)
    assert (evidence.cap, result.doubt) == (100, "")


def test_small_days_cost_one_query_each() -> None:
    evidence = Evidence()
    assert [listed(Cutting(studies(count)), evidence).queries for count in (2, 5, 9, 9)] == [1, 1, 1, 1]


def test_a_day_without_studies_costs_one_query() -> None:
    assert listed(Cutting([]), Evidence(cap=1)).queries == 1


def test_studies_without_a_time_are_found_by_their_patients() -> None:
    source = Cutting([*studies(150), *studies(300, time="")[150:]], cap=50)
    result = listed(source)
    assert set(result.found) == uids(source.studies)
    assert result.doubt == ""


def test_studies_of_one_patient_are_found_by_their_times() -> None:
    source = Cutting([*studies(120), *studies(260, patient_id="UNKNOWN", name="X")[120:]], cap=50)
    result = listed(source)
    assert set(result.found) == uids(source.studies)
    assert "studies without a time could not all be listed" in result.doubt


def test_that_studies_of_one_time_and_one_patient_are_cut_is_said() -> None:
    source = Cutting(studies(120, time="000000", patient_id="0"), cap=50)
    result = listed(source)
    assert len(result.found) < 120
    assert "cannot be asked for them in parts" in result.doubt


def test_studies_of_one_time_are_found_by_their_patients() -> None:
    source = Cutting(studies(350, time="120000"), cap=100)
    result = listed(source)
    assert (set(result.found), result.doubt) == (uids(source.studies), "")


def test_what_neither_times_nor_ids_tell_apart_is_doubted() -> None:
    source = Cutting([*studies(152, time="", patient_id="")[150:], *studies(150)], cap=100, says="cut")
    result = listed(source)
    assert "without a time and a patient id" in result.doubt


def test_a_large_day_at_one_time_raises_no_alarm_without_a_cap() -> None:
    assert listed(Cutting(studies(120, time="000000"))).doubt == ""


def test_a_source_that_looks_at_no_key_is_not_believed_and_costs_little() -> None:
    source = Cutting(studies(120), ignores=frozenset({"StudyTime", "PatientID", "PatientName"}))
    result = listed(source)
    assert "cannot be asked for them in parts" in result.doubt
    assert result.queries < 40


def test_a_data_base_with_wild_cards_of_its_own_costs_no_more() -> None:
    source = Cutting(studies(350), cap=100, says="cut", sql=True)
    result = listed(source)
    assert (set(result.found), result.doubt) == (uids(source.studies), "")
    assert result.queries < 150


def test_a_source_that_refuses_parts_is_not_believed() -> None:
    splitter = StudyLister(DAY, Evidence())
    splitter.feed(Answer([study.match() for study in studies(100)], 100))
    while splitter.query is not None:
        splitter.feed(Answer(refused=True))
    assert "cannot be asked for them in parts" in splitter.listing.doubt
    assert splitter.listing.queries < 10


def test_a_refusal_for_finding_too_much_is_no_cap() -> None:
    evidence = Evidence()
    listed(Cutting(studies(150), cap=40, says="refuses"), evidence)
    assert (evidence.cap, evidence.tells) == (None, False)
    smaller = listed(Cutting(studies(12), cap=40, says="refuses"), evidence)
    assert (smaller.queries, smaller.doubt) == (1, "")


def test_a_source_that_always_finds_too_much_is_given_up_with_a_doubt() -> None:
    splitter = StudyLister(DAY, Evidence())
    while splitter.query is not None:
        splitter.feed(Answer(cut=True))
    assert splitter.listing.doubt
    assert splitter.listing.queries < 100


def test_matches_that_come_twice_count_twice_towards_the_cap() -> None:
    source = Cutting(studies(60), cap=100, twice=True)
    result = listed(source, Evidence(cap=100))
    assert set(result.found) == uids(source.studies)
    assert result.doubt == ""


def test_a_declared_cap_that_is_exceeded_is_none() -> None:
    evidence = Evidence(cap=100)
    assert listed(Cutting(studies(150)), evidence).doubt == ""
    assert evidence.cap is None


def test_evidence_is_kept_as_text() -> None:
    knowledge = Knowledge({"IMAGE": Evidence(cap=100, tells=True, most=99, checked=50)})
    assert Knowledge.from_text(knowledge.text()).at("IMAGE") == knowledge.at("IMAGE")
    assert Knowledge.from_text(knowledge.text(), max_results=500).at("IMAGE").cap == 500
    assert Knowledge.from_text(None).at("STUDY") == Evidence()
    assert Knowledge.from_text('{"cap": 3, "most": 7}').at("STUDY") == Evidence()
    assert Knowledge.from_text("[]").at("STUDY") == Evidence()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("", None), ("12", 43200), ("1200", 43200), ("120000.5", 43200), ("12:00:01", 43201), ("noon", None), ("250000", None)],
)
def test_times_are_read_as_devices_write_them(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


times = st.one_of(
    st.just(""),
    st.sampled_from(["000000", "120000", "235959", "08", "noon"]),
    st.builds("{:02d}{:02d}{:02d}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)),
    st.builds("{:02d}{:02d}00.{:03d}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 999)),
)
ids = st.one_of(
    st.just(""),
    st.sampled_from(["0", "UNKNOWN", "unknown", "PAT_1", "PAT_12", "A%_", "[y]", "(x", "a b", "Z" * 70]),
    st.builds("P{:04d}".format, st.integers(0, 9999)),
    st.text(CHARACTERS, min_size=1, max_size=4),
)

names = st.sampled_from(["", "Doe^J", "doe^a", "Roe^R", "Müller^X", "Ärztin"])


@st.composite
def days(draw: st.DrawFn) -> list[Study]:
    drawn = draw(
        st.lists(st.tuples(times, ids, st.sampled_from(["", "Doe^J", "doe^a", "Roe^R", "Müller^X", "Ärztin"])), max_size=90)
    )
    # Many of a kind fill answers up.
    time, patient_id = draw(times), draw(ids)
    drawn += [(time or at, patient_id or who, name) for at, who, name in drawn[: draw(st.integers(0, 60))]]
    return [Study(f"1.2.{number}", 1, *kind) for number, kind in enumerate(draw(st.permutations(drawn)))]


@st.composite
def sources(draw: st.DrawFn, cap: st.SearchStrategy[int | None]) -> Cutting:
    says: Says = draw(st.sampled_from(["nothing", "cut", "refuses"]))
    return Cutting(
        draw(days()),
        cap=draw(cap),
        says=says,
        sql=says == "cut" and draw(st.booleans()),
        folds=draw(st.booleans()),
        truncates=draw(st.booleans()),
        untimed_match=draw(st.booleans()),
        ignores=draw(st.sampled_from([frozenset[str](), frozenset({"StudyTime"}), frozenset({"PatientID"})])),
        twice=draw(st.booleans()),
        around=_others(draw(st.integers(0, 60))),
    )


@pytest.fixture(autouse=True)
def _few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_QUERIES", 1500)


def _has_everything(study: Study) -> bool:
    return bool(study.time and study.patient_id and study.patient_name)


def _has_something(study: Study) -> bool:
    return bool(study.patient_id and (study.time or study.patient_name))


def _missing(source: Cutting, found: Collection[str]) -> list[Study]:
    return [study for study in source.studies if study.study_instance_uid not in found]


@pytest.mark.timeout(600)
@settings(max_examples=50)
@given(source=sources(cap=st.integers(2, 40)))
def test_a_source_with_a_known_cap_lists_all_or_is_doubted(source: Cutting) -> None:
    result = listed(source, Evidence(cap=source.cap))
    assert result.doubt or not any(map(_has_something, _missing(source, result.found)))
    assert result.queries <= listing.MAX_QUERIES + len(result.found)


@pytest.mark.timeout(600)
@given(source=sources(cap=st.one_of(st.none(), st.integers(10, 40))))
def test_a_source_of_which_nothing_is_known_lists_all_or_is_doubted(source: Cutting) -> None:
    evidence = Evidence()
    result = listed(source, evidence)
    assert result.doubt or not any(map(_has_everything, _missing(source, result.found)))
    assert set(result.found) <= uids(source.studies)


@given(first=days(), source=sources(cap=st.one_of(st.none(), st.integers(10, 40))))
def test_what_one_day_taught_does_not_mislead_the_next(first: list[Study], source: Cutting) -> None:
    evidence = Evidence()
    today, source.studies = source.studies, first
    listed(source, evidence)
    source.studies = today
    result = listed(source, evidence)
    assert result.doubt or not any(map(_has_everything, _missing(source, result.found)))


@given(source=sources(cap=st.none()))
def test_what_is_found_is_what_is_there_without_a_cap(source: Cutting) -> None:
    assert set(listed(source).found) == uids(source.studies)
