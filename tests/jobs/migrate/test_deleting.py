"""A source is deleted from only what is proved to be elsewhere: the decision, and what is refused beforehand."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import Settings
from gateway.core.errors import UsageError
from gateway.jobs.migrate import MigrationRequest, Migrations
from gateway.jobs.migrate.deleting import may_delete

UIDS = st.frozensets(st.sampled_from(["1.1", "1.2", "1.3", "1.4"]))


@given(st.dictionaries(st.sampled_from(["one", "two"]), UIDS), UIDS)
def test_a_study_is_deleted_only_if_each_held_instance_is_proved(held: dict[str, frozenset[str]], proved: frozenset[str]) -> None:
    everything = frozenset[str]().union(*held.values())
    assert not may_delete(held, proved) or (everything and everything <= proved)


def test_what_came_to_the_source_meanwhile_keeps_the_study_there() -> None:
    assert may_delete({"one": {"1.1"}}, {"1.1"})
    assert not may_delete({"one": {"1.1", "1.2"}}, {"1.1"})


def test_a_study_that_the_source_holds_twice_is_deleted_only_as_a_whole() -> None:
    assert not may_delete({"one": {"1.1"}, "two": {"1.2"}}, {"1.1"})


def test_what_the_source_does_not_hold_or_lists_nothing_of_is_left_alone() -> None:
    assert not may_delete({}, {"1.1"})
    assert not may_delete({"one": set()}, {"1.1"})


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        ({}, {}, "only an Orthanc"),
        ({"rest": {"url": "http://127.0.0.1:1"}}, {"verify": "status"}, "proves nothing"),
        ({"rest": {"url": "http://127.0.0.1:1"}}, {"ask": "ledger"}, "not proved"),
    ],
)
async def test_what_could_not_be_proved_is_refused_before_anything_moves(
    nursery: trio.Nursery, source: dict[str, Any], destination: dict[str, Any], why: str
) -> None:
    peer = {"ae_title": "PEER", "host": "127.0.0.1", "port": 1}
    settings = Settings.model_validate(
        {"sources": {"a": peer | source}, "destinations": {"b": {"kind": "dicom", **peer, **destination}}}
    )
    nothing: Any = None
    migrations = Migrations(settings, nothing, possible=lambda _source: ("b",), whole=nullcontext)
    await nursery.start(migrations.run)
    request = MigrationRequest("a", "2024-01-01", "2024-01-02", skip_existing=True, delete_from_source=True)
    with pytest.raises(UsageError, match=why):
        await migrations.start(request, detached=False)
