"""Which studies a sync looks at: windows against a brute-force reading of dates and times."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import dates
from gateway.jobs.sync.window import StudyWindow, joined, latest_moment

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2001, 1, 2), datetime(2037, 12, 30)).map(lambda at: at.replace(tzinfo=UTC).timestamp())


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def hours(count: float, **more: object) -> StudyWindow:
    return StudyWindow(last_s=count * 3600.0, zone=BERLIN, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "last", "asked"),
    [
        ("2024-03-05T15:00", 12, "20240305"),
        ("2024-03-05T12:00", 12, "20240305"),
        ("2024-03-05T11:59", 12, "20240304-20240305"),
        ("2024-03-01T03:00", 12, "20240229-20240301"),
        ("2024-01-01T00:00", 48, "20231230-20240101"),
        # The days have 23 and 25 hours on which clocks change.
        ("2024-03-31T13:00", 12, "20240331"),
        ("2024-03-31T12:30", 12, "20240330-20240331"),
        ("2024-10-27T11:30", 12, "20241027"),
    ],
)
def test_the_last_hours_ask_for_the_days_that_they_touch(now: str, last: float, asked: str) -> None:
    assert hours(last).keys(at(now)) == ({"StudyDate": asked},)


@pytest.mark.parametrize(
    ("study_date", "study_time", "within"),
    [
        ("20240305", "030000", True),
        ("20240305", "025959", False),
        ("20240304", "235959", False),
        ("20240305", "145959.999999", True),
        # A time is as late as its precision allows, and none is the whole day.
        ("20240305", "02", False),
        ("20240305", "0259", False),
        ("20240305", "03", True),
        ("20240305", "", True),
        ("20240304", "", False),
        ("2024.03.05", "03:00:00", True),
        # A date or time that cannot be read leaves no study out.
        ("", "", True),
        ("20241399", "", True),
        ("20240305", "9999", True),
        # A clock that is ahead.
        ("20240306", "010000", True),
    ],
)
def test_the_last_hours_admit_what_may_have_begun_in_them(study_date: str, study_time: str, within: bool) -> None:
    assert hours(12).admits(study_date, study_time, at("2024-03-05T15:00")) is within


def test_the_hour_that_comes_twice_is_taken_for_the_later_one() -> None:
    # 02:30 local is 00:30 and 01:30 UTC; three hours before 04:15 UTC is 01:15 UTC.
    assert hours(3).admits("20241027", "023000", at("2024-10-27T04:15", ZoneInfo("UTC")))
    assert not hours(3).admits("20241027", "015900", at("2024-10-27T04:15", ZoneInfo("UTC")))


@given(began=MOMENTS, ago_s=st.integers(0, 200_000), last=st.integers(1, 72), zone=ZONES)
def test_a_study_within_the_last_hours_is_asked_for_and_admitted(began: float, ago_s: int, last: int, zone: ZoneInfo) -> None:
    window = StudyWindow(last_s=last * 3600.0, zone=zone)
    now, local = began + ago_s, datetime.fromtimestamp(began, zone)
    (keys,) = window.keys(now)
    first, _, end = keys["StudyDate"].partition("-")
    asked = first <= f"{local:%Y%m%d}" <= (end or first)
    if ago_s <= last * 3600:
        assert asked
        assert window.admits(f"{local:%Y%m%d}", f"{local:%H%M%S.%f}", now)
    elif ago_s > last * 3600 + 3600 * 2:
        assert not window.admits(f"{local:%Y%m%d}", f"{local:%H%M%S}", now)


@given(moment=MOMENTS, zone=ZONES)
def test_the_latest_moment_of_a_time_is_not_before_it(moment: float, zone: ZoneInfo) -> None:
    local = datetime.fromtimestamp(moment, zone)
    latest = latest_moment(f"{local:%Y%m%d}", f"{local:%H%M%S.%f}", zone)
    assert latest is not None
    assert moment <= latest <= moment + 3600 + 1


def test_days_are_named_relative_to_today_or_by_date() -> None:
    named = ("yesterday", "today", "2024-01-31", "20240215..20240217", "2024-02-28..today")
    window = StudyWindow(days=tuple(dates.days(text) for text in named), zone=BERLIN)
    asked = [keys["StudyDate"] for keys in window.keys(at("2024-03-05T00:30"))]
    assert asked == ["20240131", "20240215-20240217", "20240228-20240305"]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)).map(lambda span: (span[0], span[0] + span[1])), max_size=8),
)
def test_joined_spans_have_the_same_days_and_do_not_touch(spans: list[tuple[int, int]]) -> None:
    start = date(2024, 2, 10)
    days = [(start + timedelta(days=first), start + timedelta(days=last)) for first, last in spans]
    result = joined(days)
    assert _days(result) == _days(days)
    assert all(one[1] + timedelta(days=1) < other[0] for one, other in pairwise(result))


def _days(spans: list[tuple[date, date]]) -> set[date]:
    return {first + timedelta(days=number) for first, last in spans for number in range((last - first).days + 1)}


def test_patients_and_query_keys_narrow_the_window() -> None:
    window = hours(1, patients=("A", "B"), query={"Modality": "CT"})
    assert window.keys(at("2024-03-05T15:00")) == (
        {"Modality": "CT", "PatientID": "A", "StudyDate": "20240305"},
        {"Modality": "CT", "PatientID": "B", "StudyDate": "20240305"},
    )
    assert StudyWindow().keys(0.0) == ({},)
    assert StudyWindow().admits("19700101", "", at("2024-03-05T15:00"))


def test_a_span_of_one_day_is_one_date() -> None:
    assert dates.dicom_range(date(2024, 1, 2), date(2024, 1, 2)) == "20240102"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("12h", 43200), ("2d", 172800)])
def test_a_duration_has_its_unit(text: str, seconds: float) -> None:
    assert dates.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "0h", "-1h", "1.5h", "1 h", "12 hours"])
def test_what_is_no_duration_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        dates.seconds(text)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2024-02-30", "2024-1-1", "2024-01-02..2024-01-01", "today..yesterday", "..", "2024-01-01.."]
)
def test_what_is_no_span_of_days_says_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="yesterday"):
        dates.days(text)
