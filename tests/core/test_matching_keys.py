"""Dates and times of C-FIND keys as people write them, and what cannot be one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.cli.commands.peers import keys_of
from gateway.config.settings import Settings
from gateway.control.wire import FindCommand, PullCommand
from gateway.core.dates import DATE_KEY, DATE_TIME_KEY, EARLIER_FIRST, matching_keys, matching_value
from gateway.core.errors import UsageError
from gateway.jobs.compare.request import CompareRequest


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("2024-01-15", "20240115"),
        ("20240115", "20240115"),
        ("2024.01.15", "20240115"),
        ("2024/01/15", "20240115"),
        (" 2024-01-15 ", "20240115"),
        ("20240101-20240131", "20240101-20240131"),
        ("2024-01-01-2024-01-31", "20240101-20240131"),
        ("2024-01-01..2024-01-31", "20240101-20240131"),
        ("2024-01-01 .. 2024-01-31", "20240101-20240131"),
        ("2024-01-01-20240131", "20240101-20240131"),
        ("20240115-2024-01-15", "20240115-20240115"),
        ("2024-01-01..", "20240101-"),
        ("2024-01-01-", "20240101-"),
        ("-2024-01-31", "-20240131"),
        ("..2024-01-31", "-20240131"),
        ("2024-01-15\\2024-01-17", "20240115\\20240117"),
        ("2024-02-29", "20240229"),
        ("", ""),
        ("*", "*"),
    ],
)
def test_dates_are_translated(written: str, plain: str) -> None:
    assert matching_value("StudyDate", written) == plain


@pytest.mark.parametrize(
    "written",
    ["2024-02-30", "2023-02-29", "20241301", "yesterday's", "2024", "2024-01", "15.01.2024", "01/15/2024", "2024*", "2024-01-1",
     "20240101-2024013", "-", "..", "2024-01.15", "20240101--20240131", "99999999", "00000101", "2024-01-15T10:00"],
)  # fmt: skip
def test_what_is_no_date_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="a date such as") as refused:
        matching_value("StudyDate", written)
    assert str(refused.value) == DATE_KEY


@pytest.mark.parametrize("written", ["20240131-20240101", "2024-01-31..2024-01-01", "2024-01-31-2024-01-01"])
def test_a_range_that_ends_before_it_begins_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="the earlier first") as refused:
        matching_value("StudyDate", written)
    assert str(refused.value) == DATE_KEY + EARLIER_FIRST


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("08:30", "0830"),
        ("08:30:15", "083015"),
        ("083015.5", "083015.5"),
        ("08", "08"),
        ("0800-1200", "0800-1200"),
        ("08:00..12:00", "0800-1200"),
        ("08:00-", "0800-"),
        ("10-10:30", "10-1030"),
        ("1030-10", "1030-10"),
    ],
)
def test_times_are_translated(written: str, plain: str) -> None:
    assert matching_value("StudyTime", written) == plain


@pytest.mark.parametrize("written", ["25:00", "08:60", "noon", "8:30", "08:30-25:00", "22:00-06:00"])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="a time such as"):
        matching_value("StudyTime", written)


@pytest.mark.parametrize(
    "written", ["20240115", "20240115083000.5+0100", "20240101-20240131", "20240101083000-0500-20240102", "2024-"]
)
def test_moments_are_left_as_they_are(written: str) -> None:
    assert matching_value("AcquisitionDateTime", written) == written


def test_what_is_no_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="a date and time such as") as refused:
        matching_value("AcquisitionDateTime", "2024-01-15")
    assert str(refused.value) == DATE_TIME_KEY


@pytest.mark.parametrize("keyword", ["PatientID", "AccessionNumber", "ExposureTime", "EchoTime", "NoSuchDate", "StudyDescription"])
def test_other_keys_are_left_as_they_are(keyword: str) -> None:
    assert matching_keys({keyword: "2024-01-15"}) == {keyword: "2024-01-15"}


def test_every_way_in_translates_and_refuses() -> None:
    good, bad = {"StudyDate": "2024-01-15"}, {"StudyDate": "20240131-20240101"}
    assert keys_of(["StudyDate=2024-01-15"]) == {"StudyDate": "20240115"}
    with pytest.raises(UsageError, match="key 1, StudyDate: expected a date"):
        keys_of(["StudyDate=20240131-20240101"])
    assert FindCommand(source="a", keys=good).keys == {"StudyDate": "20240115"}
    assert PullCommand(source="a", query=good).query == {"StudyDate": "20240115"}
    assert CompareRequest("a", "b", query=good).query == {"StudyDate": "20240115"}
    sync = {"name": "s", "source": "a", "query": good}
    settings = Settings.model_validate({"sources": {"a": {"ae_title": "A", "host": "h", "port": 104}}, "sync": [sync]})
    assert settings.sync[0].query == {"StudyDate": "20240115"}
    for refuses in (lambda: FindCommand(source="a", keys=bad), lambda: PullCommand(source="a", query=bad)):
        with pytest.raises(ValidationError, match="for StudyDate a date"):
            refuses()
    with pytest.raises(UsageError, match="for StudyDate a date"):
        CompareRequest("a", "b", query=bad)
