"""``gateway sync`` as it reads its options and shows its cycles."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.cli.commands.sync import line, moved, table_of
from gateway.config.settings import Settings
from gateway.control.wire import encode
from gateway.core.errors import UsageError
from gateway.jobs.sync.cycle import Cycle

SETTINGS = Settings.model_validate(
    {"sync": [{"name": "day", "source": "pacs", "to": ["a"], "last": "3d", "series": "fewer_than", "fewer_than": 5}]}
)


def cycle(**counts: Any) -> dict[str, Any]:
    return encode(Cycle("day", "pacs", 1, at=0.0, look_s=0.1, over_s=60.0, **counts))


def test_a_source_is_a_sync_of_its_own() -> None:
    table = table_of(SETTINGS, "pacs", {"last": None, "to": ["b"], "query": {}})
    assert (table.name, table.source, table.to, table.last) == ("pacs", "pacs", ("b",), None)


def test_options_replace_what_a_configured_sync_says() -> None:
    table = table_of(SETTINGS, "day", {"days": ["today"], "series": "smallest", "fewer_than": None})
    assert (table.source, table.to, table.last, table.days) == ("pacs", ("a",), None, ("today",))
    assert (table.series, table.fewer_than) == ("smallest", None)
    assert table_of(SETTINGS, "day", {}) == SETTINGS.sync[0]


def test_an_option_that_cannot_be_meant_is_named() -> None:
    with pytest.raises(UsageError, match="--stable-for: expected a duration such as"):
        table_of(SETTINGS, "day", {"stable_for": "5"})


def test_a_cycle_is_one_line() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d  3 found, 0 missing", line(cycle(found=3)))
    busy = cycle(found=9, missing=3, started=2, paused=1, underway=1, growing=2)
    assert line(busy)[10:] == "9 found, 3 missing, 2 started, 1 tried again later, 1 under way, 2 growing"
    assert line(cycle(error="ARCHIVE@h:1: connection refused")).endswith("; ARCHIVE@h:1: connection refused")
    assert line(cycle(found=1, remarks=("a was not asked",))).endswith("; a was not asked")


def test_what_was_moved_has_its_rate() -> None:
    counts = cycle(moved=1, series=2, instances=90, bytes=4_200_000)
    assert moved(counts) == "moved 1 study, 2 series, 90 instances, 4.2 MB, 90/min"
    assert moved(counts | {"unfinished": 2}).endswith("; 2 studies NOT whole")
