"""Schedules and rates in a configuration: what may be written, and what is said of anything else."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config.loading import load
from gateway.config.settings import MIN_RESERVE_BYTES, Settings
from gateway.config.show import as_toml
from gateway.core.errors import ConfigurationError
from gateway.ledger.database.writer import WAL_CHECKPOINT_PAGES

Load = Callable[[str], Settings]

NIGHT = '[schedule.night]\ntime_zone = "Europe/Berlin"\n'
SOURCE = '[sources.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104\n'
FOLDER = '[destinations.folder]\nkind = "folder"\npath = "archive"\n'


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(text: str) -> Settings:
        file = tmp_path / "config.toml"
        file.write_text(text, encoding="utf-8")
        return load(file, {})

    return run


def problems(load_text: Load, text: str) -> list[tuple[str, str, str, str]]:
    with pytest.raises(ConfigurationError) as raised:
        load_text(text)
    return [(problem.where.rpartition(":")[2], problem.key, problem.found, problem.expected) for problem in raised.value.problems]


def utc(day: int, hour: int) -> datetime:
    """Return a time in the week from Monday 23 November 2026, when Berlin is an hour ahead."""
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def test_nights_and_weekends(load_text: Load) -> None:
    hours = load_text(NIGHT + 'night = "19-6"\nweekends = true\n').hours("night")
    assert hours is not None
    assert [hours.is_open(utc(25, hour)) for hour in (4, 5, 17, 18)] == [True, False, False, True]
    assert hours.next_change(utc(27, 18)) == utc(30, 5)


def test_days_and_ranges_of_days_add_up(load_text: Load) -> None:
    hours = load_text(NIGHT + '"monday-friday" = "19-6"\nwednesday = "12-13"\nsaturday = "8-10"\n').hours("night")
    assert hours is not None
    assert hours.is_open(utc(25, 11))
    assert not hours.is_open(utc(26, 11))
    assert hours.is_open(utc(28, 4)), "the night of Friday"
    assert hours.next_change(utc(28, 5)) == utc(28, 7)
    assert not hours.is_open(utc(28, 19)), "Saturday has no night"


def test_what_names_no_hours_is_always(load_text: Load) -> None:
    settings = load_text(FOLDER)
    assert settings.hours(settings.destinations["folder"].when) is None


def test_every_problem_of_a_schedule_has_its_line(load_text: Load) -> None:
    text = (
        NIGHT.replace("Berlin", "Berln")
        + 'friday = "25-6"\n"monday-friday" = "19:6"\n"mon-fri" = "19-6"\nsunday = 5\nnihgt = "19-6"\n'
    )
    hours = 'hours such as "19-6", "18:30-24" or "0-6, 19-24"'
    zone, friday, weekdays, abbreviated, sunday, misspelt = problems(load_text, text)
    assert zone == ("2", "schedule.night.time_zone", '"Europe/Berln"', 'an IANA time zone such as "Europe/Berlin" or "UTC"')
    assert friday == ("3", "schedule.night.friday", '"25-6"', f"{hours}: from 0 to 23:59, until 24 at most")
    assert weekdays == ("4", "schedule.night.monday-friday", '"19:6"', hours)
    assert abbreviated[:3] == ("5", "schedule.night.mon-fri", "unknown key")
    assert 'a day or a range of days such as "saturday" or "monday-friday"' in abbreviated[3]
    assert sunday == ("6", "schedule.night.sunday", "5", hours)
    assert misspelt == ("7", "schedule.night.nihgt", "unknown key", 'a known one: did you mean "night"?')


def test_a_schedule_has_a_time_zone_and_hours(load_text: Load) -> None:
    assert problems(load_text, '[schedule.night]\nnight = "19-6"\n') == [("1", "schedule.night.time_zone", "nothing", "a string")]
    ((line, key, found, expected),) = problems(load_text, NIGHT + "weekends = false\n")
    assert (line, key, found) == ("1", "schedule.night", "no hours")
    assert "`night`" in expected


def test_a_schedule_that_is_named_has_to_be_there(load_text: Load) -> None:
    text = FOLDER + 'when = "nights"\n'
    assert problems(load_text, text) == [
        ("4", "destinations.folder.when", 'unknown schedule "nights"', "a [schedule.NAME], and there is none")
    ]
    ((_, _, _, expected),) = problems(load_text, text + NIGHT + 'night = "19-6"\n')
    assert expected == 'a known one: did you mean "night"?'
    load_text(text.replace("nights", "night") + NIGHT + 'night = "19-6"\n')


@pytest.mark.parametrize(
    "rate", ['"20MBps"', '"20 mb/s"', '"0 MB/s"', '"9.99 kB/s"', '"-1 MB/s"', '"1e3 MB/s"', "20", '"20"', '"20 MiB/s"', "true"]
)
def test_what_is_no_rate_is_refused(load_text: Load, rate: str) -> None:
    ((line, key, found, expected),) = problems(load_text, f"{SOURCE}max_rate = {rate}\n")
    assert (line, key, found) == ("5", "sources.pacs.max_rate", rate)
    assert expected == 'a rate from 10 kB/s on such as "20 MB/s", "500 kB/s" or "100 Mbit/s"'


def test_a_source_has_room_for_its_moves(load_text: Load) -> None:
    assert load_text(SOURCE + "moves = 2\nassociations = 2\n").sources["pacs"].associations == 2
    assert problems(load_text, SOURCE + "moves = 3\nassociations = 2\n") == [
        ("6", "sources.pacs.associations", "2", "as many as `moves` or more: 3")
    ]


def test_what_is_in_effect_is_shown_as_it_is_written(load_text: Load) -> None:
    text = f'{FOLDER}max_rate = "1.5 MB/s"\nwhen = "night"\n{NIGHT}"monday-friday" = "19-6"\n'
    shown = as_toml(load_text(text), {})
    assert 'max_rate = "1.5 MB/s"' in shown
    assert 'monday-friday = "19-6"' in shown
    assert as_toml(load_text(shown), {}) == shown


@pytest.mark.parametrize("reserve", [0, 1, 4096, 1_000_000, 1 << 20, (1 << 24) - 1])
def test_a_reserve_that_the_ledger_cannot_live_on_is_refused(load_text: Load, reserve: int) -> None:
    (problem,) = problems(load_text, f"[spool]\nreserve_bytes = {reserve}\n")
    assert problem[1:3] == ("spool.reserve_bytes", str(reserve))
    assert "16777216" in problem[3]
    assert "ledger" in problem[3]


def test_the_smallest_reserve_holds_the_ledgers_log() -> None:
    assert MIN_RESERVE_BYTES >= WAL_CHECKPOINT_PAGES * (4096 + 24)


@pytest.mark.parametrize("reserve", [1 << 24, 1 << 30, 1 << 60])
def test_a_reserve_that_it_can_live_on_is_taken(load_text: Load, reserve: int) -> None:
    assert load_text(f"[spool]\nreserve_bytes = {reserve}\n").spool.reserve_bytes == reserve
