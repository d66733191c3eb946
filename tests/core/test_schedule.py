"""Hours of a week in a time zone: by the wall clock, over midnight, and on the days that have 23 or 25 hours."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.schedule import DAYS, WEEK_MINUTES, Schedule, Span, parse_days, parse_hours, parse_zone

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(zone: ZoneInfo = BERLIN, **hours: str) -> Schedule:
    """Return the schedule of ``monday="8-12"``, ``monday_friday="19-6"`` …"""
    return Schedule.weekly(
        zone,
        [(day, span) for days, text in hours.items() for day in parse_days(days.replace("_", "-")) for span in parse_hours(text)],
    )


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


# Hours as they are written


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("8-12", [(480, 720)]),
        ("19-6", [(1140, 1800)]),
        ("18:30-6:15", [(1110, 1815)]),
        ("0-6, 19-24", [(0, 360), (1140, 1440)]),
        ("19-0", [(1140, 1440)]),
        ("0-24", [(0, 1440)]),
        ("0-0", [(0, 1440)]),
        (" 08:00 - 09:00 ,10-11", [(480, 540), (600, 660)]),
        ("23:59-0", [(1439, 1440)]),
        ("12-11:59", [(720, 2159)]),
    ],
)
def test_hours_are_read(text: str, spans: list[tuple[int, int]]) -> None:
    assert [(span.start, span.end) for span in parse_hours(text)] == spans


@pytest.mark.parametrize(
    "text",
    [
        "",
        "19",
        "19-",
        "-6",
        "19-6-7",
        "25-6",
        "24-6",
        "8-24:30",
        "8-25",
        "8:60-9",
        "8-8",
        "8h-9h",
        "8.30-9",
        "٨-٩",
        "8-9,",
        "8-9 10-11",
    ],
)
def test_what_are_no_hours_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="hours such as"):
        parse_hours(text)


def test_a_range_of_days_has_its_last_day_in_it() -> None:
    assert parse_days("monday-friday") == (0, 1, 2, 3, 4)
    assert parse_days("friday-monday") == (4, 5, 6, 0)
    assert parse_days("sunday") == (6,)
    assert parse_days("sunday-sunday") == (6,)
    assert len(parse_days("tuesday-monday")) == 7


@pytest.mark.parametrize("text", ["", "mon", "Monday", "monday-", "-friday", "monday-friday-sunday", "monday - friday", "weekday"])
def test_what_are_no_days_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="a day or a range of days"):
        parse_days(text)


@pytest.mark.parametrize("name", ["", "Berlin", "Europe", "Europe/Berln", "/etc/localtime", "../UTC", "UTC\0", "CET+1"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an IANA time zone"):
        parse_zone(name)


def test_zones_are_known_where_the_system_has_none() -> None:
    zoneinfo.reset_tzpath(to=[])
    try:
        assert ZoneInfo.no_cache("Europe/Berlin").utcoffset(datetime(2026, 7, 1)) == timedelta(hours=2)
    finally:
        zoneinfo.reset_tzpath()


# Midnight


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    nights = schedule(friday="19-6", sunday="19-6")
    assert not nights.is_open(berlin("2026-11-27T18:59:59"))
    assert nights.is_open(berlin("2026-11-27T19:00"))
    assert nights.is_open(berlin("2026-11-28T05:59:59"))
    assert not nights.is_open(berlin("2026-11-28T06:00"))
    assert nights.is_open(berlin("2026-11-29T23:00"))
    assert nights.is_open(berlin("2026-11-30T05:59"))
    assert not nights.is_open(berlin("2026-11-30T06:00"))
    assert not nights.is_open(berlin("2026-11-27T05:00")), "that would be the night of Thursday"


def test_days_that_touch_at_midnight_are_one_stretch() -> None:
    weekend = schedule(friday="19-24", saturday_sunday="0-24", monday="0-6")
    assert weekend.next_change(berlin("2026-11-27T12:00")) == berlin("2026-11-27T19:00")
    assert weekend.next_change(berlin("2026-11-27T19:00")) == berlin("2026-11-30T06:00")


def test_hours_that_overlap_are_open_once() -> None:
    both = schedule(monday="8-12, 10-14", monday_tuesday="9-11, 13-14")
    assert both.next_change(berlin("2026-11-23T08:30")) == berlin("2026-11-23T14:00")


@pytest.mark.parametrize("always", ["0-24", "12-11:59, 11:59-12", "6-6:30, 6:30-6"])
def test_what_is_always_open_never_changes(always: str) -> None:
    whole = schedule(monday_sunday=always)
    assert whole.edges == (0, WEEK_MINUTES)
    assert whole.is_open(berlin("2026-11-29T23:59:59"))
    assert whole.next_change(berlin("2026-11-25T12:00")) is None


def test_what_is_never_open_never_changes() -> None:
    never = schedule()
    assert not never.is_open(berlin("2026-11-25T12:00"))
    assert never.next_change(berlin("2026-11-25T12:00")) is None


def test_other_zones_ask_about_the_same_instant() -> None:
    office = schedule(monday_friday="9-17")
    assert office.is_open(datetime(2026, 11, 25, 8, 0, tzinfo=UTC))
    assert not office.is_open(datetime(2026, 11, 25, 9, 0, tzinfo=ZoneInfo("Asia/Tokyo")))


# The days on which the clock jumps


def test_a_night_is_an_hour_shorter_or_longer_when_the_clocks_change() -> None:
    nights = schedule(monday_sunday="19-6")
    for evening, hours in (("2026-03-28T19:00", 10), ("2026-03-29T19:00", 11), ("2026-10-24T19:00", 12)):
        opens = berlin(evening)
        closes = nights.next_change(opens)
        assert closes is not None
        assert closes - opens.astimezone(UTC) == timedelta(hours=hours)


def test_a_skipped_hour_never_opens_and_a_repeated_one_is_open_twice() -> None:
    two = schedule(sunday="2-3")
    assert two.next_change(datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == berlin("2026-04-05T02:00")
    opens = two.next_change(datetime(2026, 10, 24, 12, 0, tzinfo=UTC))
    assert opens == datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    assert two.next_change(opens) == datetime(2026, 10, 25, 2, 0, tzinfo=UTC)


def test_hours_that_begin_or_end_in_what_is_skipped_do_so_at_the_jump() -> None:
    jump = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert schedule(sunday="2:30-5").next_change(jump - timedelta(minutes=30)) == jump
    assert schedule(sunday="1:30-2:30").next_change(jump - timedelta(minutes=15)) == jump


def test_hours_within_what_is_repeated_come_twice() -> None:
    half = schedule(sunday="2-2:30")
    at, changes = datetime(2026, 10, 24, 12, 0, tzinfo=UTC), []
    for _ in range(4):
        at = half.next_change(at) or at
        changes.append(at.strftime("%H:%M"))
    assert changes == ["00:00", "00:30", "01:00", "01:30"]


def test_a_day_that_a_zone_never_had_is_left_out() -> None:
    apia = ZoneInfo("Pacific/Apia")
    fridays = schedule(apia, friday="8-9")
    thursday = datetime(2011, 12, 29, 12, 0, tzinfo=apia)
    assert fridays.next_change(thursday) == datetime(2012, 1, 6, 8, 0, tzinfo=apia), "30 December 2011, a Friday, was skipped"


# All of it, against a minute-by-minute oracle that knows nothing of edges and jumps

Hours = tuple[int, int, int]
"""A day (0 is Monday), and the minutes of that day at which it opens and closes; it closes on the next day where that is less."""


def oracle_is_open(zone: ZoneInfo, hours: Sequence[Hours], at: datetime) -> bool:
    wall = at.astimezone(zone)
    minute, today = wall.hour * 60 + wall.minute, wall.weekday()
    yesterday = (today + 6) % 7
    for day, opens, closes in hours:
        if closes > opens:
            if day == today and opens <= minute < closes:
                return True
        elif (day == today and minute >= opens) or (day == yesterday and minute < closes):
            return True
    return False


def oracle_next_change(zone: ZoneInfo, hours: Sequence[Hours], at: datetime) -> datetime | None:
    now = oracle_is_open(zone, hours, at)
    for minutes in range(1, 15 * 24 * 60):
        moment = at + timedelta(minutes=minutes)
        if oracle_is_open(zone, hours, moment) is not now:
            return moment
    return None


def written(hours: Hours) -> tuple[int, Span]:
    """Write `hours` as a configuration does, and have them read."""
    day, opens, closes = hours
    (span,) = parse_hours(f"{opens // 60}:{opens % 60:02}-{closes // 60}:{closes % 60:02}")
    return day, span


ZONES = st.one_of(
    st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "UTC"]
    ),
    st.sampled_from(sorted(zoneinfo.available_timezones())),
).map(ZoneInfo)
JUMPS = st.sampled_from(
    [
        datetime(2026, 3, 29, 1, 0),  # Berlin skips an hour
        datetime(2026, 10, 25, 1, 0),  # and has one twice
        datetime(2026, 3, 8, 7, 0),  # New York
        datetime(2026, 11, 1, 6, 0),
        datetime(2026, 4, 4, 15, 0),  # Lord Howe, half an hour
        datetime(2026, 10, 3, 15, 30),
        datetime(2011, 12, 30, 10, 0),  # Apia skips a day
        datetime(2026, 2, 15, 2, 0),  # Casablanca, for Ramadan
    ]
)
INSTANTS = st.one_of(
    st.datetimes(datetime(1973, 1, 1), datetime(2037, 12, 1)),
    st.builds(lambda jump, minutes: jump + timedelta(minutes=minutes), JUMPS, st.integers(-2000, 2000)),
).map(lambda naive: naive.replace(second=0, microsecond=0, tzinfo=UTC))
MINUTES = st.one_of(st.integers(0, 1439), st.sampled_from([0, 60, 90, 120, 150, 180, 360, 1140]))
HOURS = st.tuples(st.integers(0, len(DAYS) - 1), MINUTES, st.one_of(MINUTES, st.just(1440))).filter(
    lambda each: each[1] != each[2] and each[2] != 0
)


@settings(max_examples=150)
@given(zone=ZONES, hours=st.lists(HOURS, min_size=1, max_size=4), at=INSTANTS)
@example(zone=BERLIN, hours=[(6, 120, 180)], at=datetime(2026, 3, 28, 12, 0, tzinfo=UTC))
@example(zone=ZoneInfo("Australia/Lord_Howe"), hours=[(6, 105, 135)], at=datetime(2026, 4, 4, 12, 0, tzinfo=UTC))
@example(zone=ZoneInfo("Pacific/Apia"), hours=[(4, 0, 1440)], at=datetime(2011, 12, 24, 12, 0, tzinfo=UTC))
def test_it_changes_when_a_brute_force_oracle_says_so(zone: ZoneInfo, hours: list[Hours], at: datetime) -> None:
    ours = Schedule.weekly(zone, [written(each) for each in hours])
    assert ours.is_open(at) is oracle_is_open(zone, hours, at)
    assert ours.next_change(at) == oracle_next_change(zone, hours, at)


@given(zone=ZONES, hours=st.lists(HOURS, min_size=1, max_size=3), at=INSTANTS, seconds=st.floats(0.0, 59.999))
def test_within_a_minute_nothing_changes_and_the_next_change_is_ahead(
    zone: ZoneInfo, hours: list[Hours], at: datetime, seconds: float
) -> None:
    ours = Schedule.weekly(zone, [written(each) for each in hours])
    later = at + timedelta(seconds=seconds)
    assert ours.is_open(later) is ours.is_open(at)
    assert ours.next_change(later) == ours.next_change(at)
