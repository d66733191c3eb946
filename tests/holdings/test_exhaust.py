"""Archives that cut their answers short, in every way they do: all that can be reached is found, or the doubt is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.holdings.exhaust import SMALLEST_LIMIT, Answer, Limit, everything, halves
from gateway.holdings.matching import matches

Study = tuple[str, str]
"""Its date and its time, either of which may be missing."""


@dataclass
class Archive:
    """Gives at most `limit` answers, in an order of its own, and says so only if it `tells`."""

    studies: dict[str, Study]
    limit: int
    tells: bool = False
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def __call__(self, keys: Mapping[str, str]) -> Answer[Study]:
        self.asked.append(keys)
        held = {uid: of for uid, of in self.studies.items() if matches({"StudyDate": of[0], "StudyTime": of[1]}, keys)}
        given_ = dict(list(held.items())[: self.limit])
        return Answer(given_, cut=self.tells and len(given_) < len(held))


def on_days(*days: str, time: str = "") -> dict[str, Study]:
    return {str(number): (day, time or f"{number % 24:02}{number % 60:02}00") for number, day in enumerate(days)}


dates = st.dates().filter(lambda day: 1960 <= day.year < 2040).map(lambda day: f"{day:%Y%m%d}")
times = st.times().map(lambda at: f"{at:%H%M%S}")
archives = st.builds(
    Archive,
    st.lists(st.tuples(st.one_of(dates, st.sampled_from(["20240101", "20240102"])), times), max_size=120).map(
        lambda studies: {str(number): study for number, study in enumerate(studies)}
    ),
    limit=st.integers(SMALLEST_LIMIT, 60),
    tells=st.booleans(),
)


@given(archives)
def test_everything_is_found_whatever_the_limit_or_the_doubt_is_told(archive: Archive) -> None:
    limit = Limit()
    found = everything(archive, {}, limit)
    assert found.keys() == archive.studies.keys() or limit.doubtful


@given(archives, st.data())
def test_what_was_learned_holds_for_the_next_query(archive: Archive, drawn: st.DataObject) -> None:
    limit = Limit()
    everything(archive, {"StudyDate": drawn.draw(dates)}, limit)
    assert everything(archive, {}, limit).keys() == archive.studies.keys() or limit.doubtful


def test_an_archive_without_a_limit_is_asked_a_few_queries_more_and_then_no_more() -> None:
    archive = Archive(on_days(*["20240101", "20240215", "20240310"] * 30), limit=1000)
    limit = Limit()
    keys = {"StudyDate": "20240101-20240331"}
    assert len(everything(archive, keys, limit)) == 90
    once = len(archive.asked)
    assert len(everything(archive, keys, limit)) == 90
    assert (once, len(archive.asked)) == (5, 6)
    assert not limit.doubtful


def test_a_wider_range_with_more_answers_proves_an_answer_that_cannot_be_halved() -> None:
    archive = Archive(on_days(*["20240101"] * 40, time="120000") | {"more": ("20240102", "090000")}, limit=1000)
    limit = Limit()
    assert len(everything(archive, {"StudyDate": "20240101"}, limit)) == 40
    assert (len(archive.asked), limit.doubtful) == (2, False)


def test_an_archive_that_tells_is_believed() -> None:
    archive = Archive(on_days(*["20240101", "20240215"] * 30), limit=25, tells=True)
    limit = Limit()
    assert len(everything(archive, {"StudyDate": "20240101-20240331"}, limit)) == 60
    assert limit.tells
    archive.asked.clear()
    archive.studies = on_days(*["20240401"] * 25)
    assert len(everything(archive, {"StudyDate": "20240401"}, limit)) == 25
    assert len(archive.asked) == 1


def test_studies_of_one_moment_beyond_the_limit_are_doubt() -> None:
    archive = Archive(on_days(*["20240101"] * 40, time="120000"), limit=25)
    limit = Limit()
    everything(archive, {"StudyDate": "20240101"}, limit)
    assert limit.doubtful


def test_few_answers_are_not_doubted() -> None:
    archive = Archive(on_days("20240101", "20240101"), limit=25)
    assert len(everything(archive, {}, Limit())) == 2
    assert len(archive.asked) == 1


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"StudyDate": "20240101-20240104"}, [{"StudyDate": "20240101-20240102"}, {"StudyDate": "20240103-20240104"}]),
        ({"StudyDate": "20240101-20240102"}, [{"StudyDate": "20240101"}, {"StudyDate": "20240102"}]),
        (
            {"StudyDate": "20240101"},
            [
                {"StudyDate": "20240101", "StudyTime": "000000-115959.999999"},
                {"StudyDate": "20240101", "StudyTime": "120000-235959.999999"},
            ],
        ),
        ({"StudyDate": "20240101", "StudyTime": "120000-120000.999999"}, []),
        ({"StudyDate": "20240101", "StudyTime": "12"}, []),
        ({"StudyDate": "yesterday"}, []),
    ],
)
def test_halves_are_of_days_and_then_of_seconds(keys: dict[str, str], parts: list[dict[str, str]]) -> None:
    assert halves(keys) == parts
