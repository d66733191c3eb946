"""Queries that nobody waits for any more, and sources whose answers have no end: they hold up nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom.dataset import Dataset

from gateway.association.scu import matches
from gateway.config.settings import Settings
from gateway.core.errors import AssociationError, ProtocolError
from gateway.ledger import Ledger
from gateway.retrieve import Retriever
from gateway.retrieve.context import QUERIES_AT_A_TIME
from gateway.retrieve.recovery import Backoff
from tests.support.finding import Endless, Finder
from tests.support.ports import HOST
from tests.support.waiting import wait_until

DEADLINE_S = 60.0


def study(uid: str = "1.2.3", **more: Any) -> Dataset:
    match = Dataset()
    match.StudyInstanceUID = uid
    for keyword, value in more.items():
        setattr(match, keyword, value)
    return match


class Office:
    """Two sources: "stuck" answers without an end, "fine" as it should."""

    def __init__(self, ledger: Ledger, stack: ExitStack, **stuck: Any) -> None:
        self.stuck, self.fine = Endless(lambda _keys: ([study()], 0)), Finder(lambda _keys: ([study("1.2.4")], 0))
        stack.enter_context(self.stuck.running())
        stack.enter_context(self.fine.running())
        sources = {
            "stuck": {"ae_title": "ARCHIVE", "host": HOST, "port": self.stuck.port, **stuck},
            "fine": {"ae_title": "ARCHIVE", "host": HOST, "port": self.fine.port},
        }
        self.retriever = Retriever(
            Settings.model_validate({"sources": sources}),
            ledger,
            tls=lambda _table: pytest.fail("no source here has TLS"),
            set_order=lambda _source, _order: None,
            barrier=lambda: None,
            storage=lambda: pytest.fail("nothing is retrieved here"),
            backoff=Backoff(first_s=0.01, max_s=0.02, tries=3),
        )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(tmp_path / "ledger.sqlite"))
        yield lambda **stuck: Office(ledger, stack, **stuck)


async def heard(condition: Any, what: str) -> None:
    await trio.to_thread.run_sync(wait_until, condition, what)


async def test_queries_without_an_end_at_one_source_hold_up_no_other(make: Any) -> None:
    office = make()
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(office.retriever.find, "stuck", {"PatientID": "P1"})
            await heard(lambda: len(office.stuck.asked) >= QUERIES_AT_A_TIME, "the queries at the stuck source")
            assert await office.retriever.find("fine", {"PatientID": "P1"}) == [{"StudyInstanceUID": "1.2.4"}]
            assert (await office.retriever.list_studies("fine", {"PatientID": "P1"})).found.keys() == {"1.2.4"}
            nursery.cancel_scope.cancel()
        await heard(lambda: office.stuck.ended >= len(office.stuck.asked), "the end of every association")


async def test_who_leaves_cancels_the_query(make: Any) -> None:
    office = make()
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(office.retriever.find, "stuck", {"PatientID": "P1"})
            await heard(lambda: office.stuck.asked, "the query")
            nursery.cancel_scope.cancel()
        await heard(lambda: office.stuck.cancelled == 1, "C-CANCEL")


async def test_a_source_that_heeds_no_c_cancel_is_left(make: Any) -> None:
    office = make()
    office.stuck.deaf = True
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(office.retriever.list_studies, "stuck", {"PatientID": "P1"})
            await heard(lambda: office.stuck.asked, "the query")
            nursery.cancel_scope.cancel()
        await heard(lambda: office.stuck.cancelled == 1, "C-CANCEL")
        await heard(lambda: office.stuck.ended == office.stuck.associations, "the end of the association")


async def test_a_query_that_is_answered_for_too_long_ends_with_words(make: Any) -> None:
    office = make(query_timeout_s=0.3)
    with trio.fail_after(DEADLINE_S):
        with pytest.raises(ProtocolError, match=r"was still answering a query after 0\.3 s: ask for less"):
            await office.retriever.find("stuck", {"PatientID": "P1"})
        with pytest.raises(AssociationError, match="was still answering"):
            await office.retriever.list_studies("stuck", {"PatientID": "P1"})
        await heard(lambda: office.stuck.cancelled >= 2, "C-CANCEL for each")


async def test_more_matches_than_anybody_wants_end_with_words(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "MAX_MATCHES", 5)
    office = make()
    with trio.fail_after(DEADLINE_S), pytest.raises(ProtocolError, match="more than 5 matches"):
        await office.retriever.find("stuck", {"PatientID": "P1"})


async def test_answers_that_would_fill_the_memory_end_with_words(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "MAX_KEPT_BYTES", 1 << 20)
    office = make()
    office.stuck.answer = lambda _keys: ([study(StudyDescription="x" * 60_000)], 0)
    with trio.fail_after(DEADLINE_S), pytest.raises(ProtocolError, match="hold more than 1 MiB"):
        await office.retriever.find("stuck", {"PatientID": "P1"})


async def test_what_was_not_asked_for_and_what_is_too_long_is_left_out(make: Any) -> None:
    office = make()
    long, other = study("1.2.5", StudyDescription="x" * 70_000), study("1.2.6", InstitutionName="Hospital")
    other.add_new(0x00091001, "LO", "private")
    office.fine.answer = lambda _keys: ([long, other], 0)
    with trio.fail_after(DEADLINE_S):
        assert await office.retriever.find("fine", {"PatientID": "P1"}) == [
            {"StudyInstanceUID": "1.2.5"},
            {"StudyInstanceUID": "1.2.6"},
        ]
