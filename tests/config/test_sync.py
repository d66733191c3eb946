"""``[[sync]]``: what it may say, and what it owes the other tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.loading import load
from gateway.config.settings import Settings
from gateway.core.domain import Priority
from gateway.core.errors import ConfigurationError, Problem
from gateway.jobs.sync.growth import TWO_LOOKS, Patience
from gateway.jobs.sync.plan import plan_of
from gateway.jobs.sync.series import ALL, Selection, Take

PEERS = """
[sources.pacs]
ae_title = "PACS"
host = "192.0.2.1"
port = 104
[sources.sender]
ae_title = "SENDER"
host = "192.0.2.2"
[destinations.a]
kind = "folder"
path = "a"
[schedule.night]
time_zone = "UTC"
night = "19-6"
[[routes]]
name = "all"
to = ["a"]
[[sync]]
name = "day"
source = "pacs"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def loaded(file: Path, *lines: str) -> Settings:
    file.write_text(PEERS + "\n".join(lines) + "\n")
    return load(file, {})


def problem(file: Path, *lines: str) -> Problem:
    with pytest.raises(ConfigurationError) as raised:
        loaded(file, *lines)
    (found,) = raised.value.problems
    return found


def test_a_sync_says_little_and_means_the_last_twelve_hours(file: Path) -> None:
    (table,) = loaded(file).sync
    plan = plan_of(table, ("a", "b"))
    assert (plan.name, plan.source, plan.to, plan.by_routes) == ("day", "pacs", ("a", "b"), True)
    assert (plan.window.last_s, plan.selection, plan.patience) == (43200.0, ALL, TWO_LOOKS)
    assert (plan.interval_s, plan.compare_every_s, plan.hours, plan.priority) == (60.0, 21600.0, None, Priority.NORMAL)


def test_without_a_route_a_sync_has_to_name_its_destinations(file: Path) -> None:
    file.write_text(PEERS.replace('[[routes]]\nname = "all"\nto = ["a"]\n', ""))
    with pytest.raises(ConfigurationError, match=r"sync\[0\].to: found none, and there is no route"):
        load(file, {})


def test_a_sync_may_say_everything(file: Path) -> None:
    (table,) = loaded(
        file,
        'to = ["a"]',
        'days = ["yesterday", "2024-01-01..2024-01-31"]',
        'patients = ["P1"]',
        'query = { StudyDescription = "*Thorax*" }',
        'time_zone = "Europe/Berlin"',
        'series = "fewer_than"',
        "fewer_than = 5",
        'modalities = ["CT"]',
        'description = ["*topo*"]',
        'stable_for = "5m"',
        'known = "ledger"',
        'when = "night"',
        'priority = "low"',
    ).sync
    plan = plan_of(table, ("a", "b"))
    assert (plan.to, plan.by_routes, plan.from_ledger, plan.hours) == (("a",), False, True, "night")
    assert (plan.window.last_s, len(plan.window.days), str(plan.window.zone)) == (None, 2, "Europe/Berlin")
    assert plan.selection == Selection(Take.FEWER_THAN, 5, ("CT",), ("*topo*",))
    assert (plan.patience, plan.priority) == (Patience(quiet_s=300.0), Priority.LOW)


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ('last = "12"', "sync[0].last", "a duration such as"),
        ('days = ["tomorrow"]', "sync[0].days[0]", "yesterday"),
        ('days = ["2024-02-01..2024-01-01"]', "sync[0].days[0]", "the earlier first"),
        ('time_zone = "Mars"', "sync[0].time_zone", "time zone"),
        ('series = "largest"', "sync[0].series", '"smallest"'),
        ('series = "fewer_than"', "sync[0]", "fewer_than = N"),
        ("fewer_than = 3", "sync[0]", "fewer_than = N"),
        ('last = "1h"\ndays = ["today"]', "sync[0]", "not both"),
        ('last = "1h"\nquery = { StudyDate = "20240101" }', "sync[0]", "not both"),
        ('patients = ["A"]\nquery = { PatientID = "B" }', "sync[0]", "not both"),
        ('query = { StudyDescripion = "x" }', "sync[0].query.StudyDescripion", "did you mean"),
        ('to = ["b"]', "sync[0].to", "one of a"),
        ('when = "nigth"', "sync[0].when", "night"),
        ("interval = 5", "sync[0].interval", "interval_s"),
        ('[[sync]]\nname = "other"\nsource = "pasc"', "sync[1].source", "pacs"),
        ('[[sync]]\nname = "other"\nsource = "sender"', "sync[1].source", "port"),
        ('[[sync]]\nname = "day"\nsource = "pacs"', "sync[1].name", "a name of its own"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(file: Path, line: str, key: str, says: str) -> None:
    found = problem(file, line)
    assert found.key == key
    assert says in found.expected
