"""An instance that a comparison asks for by C-MOVE goes to it and nowhere else; whatever else comes is taken in as ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pydicom
import pytest
import trio
from pydicom.dataset import Dataset
from sqlalchemy import func, select

from gateway.archives.places.c_get import Into
from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.core.domain import VerdictKind
from gateway.core.errors import Refusal
from gateway.ledger.database.schema import deliveries, instances
from gateway.retrieve.arrivals import REMEMBERED, Arrivals, Capture, Captures, Capturing
from gateway.retrieve.operations import ANONYMOUS
from gateway.retrieve.request import JobSpec
from gateway.retrieve.state import StudyState
from tests.retrieve.conftest import DEADLINE_S, Bench
from tests.support.comparing import differences
from tests.support.pacs import Order, honest
from tests.support.waiting import PATIENCE_S, until


def uids(dataset: Dataset) -> tuple[str, str, str]:
    return str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)


async def ask(here: Bench, number: int, to: Path) -> str:
    """Capture an instance of the PACS; return why it did not come."""
    with trio.fail_after(DEADLINE_S):
        return await here.retriever.capture("archive", uids(here.pacs.datasets[number]), Into(to))


def recorded(here: Bench) -> list[str]:
    """The SOP Instance UIDs that the ledger has, once it has all that was answered."""
    here.reception.recorder.flush()
    with here.ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(deliveries)).scalar_one() == 0
        return sorted(connection.execute(select(instances.c.sop_instance_uid)).scalars())


def spooled(here: Bench) -> int:
    return sum(len(locations) for _, locations in here.reception.spool.locations())


async def test_it_is_there_and_nothing_of_it_anywhere_else(bench: Callable[..., Bench], tmp_path: Path) -> None:
    here = bench()
    to, wanted = tmp_path / "a", here.pacs.datasets[1]

    assert await ask(here, 1, to) == ""

    original = tmp_path / "original"
    wanted.save_as(original, enforce_file_format=True)
    assert differences(original, to) == []
    assert to.stat().st_mode & 0o777 == 0o600
    (order,) = here.pacs.orders
    assert (order.level, order.destination) == ("IMAGE", "GATEWAY")
    assert uids(order.identifier) == uids(wanted)
    assert (recorded(here), here.reception.arrived, spooled(here)) == ([], [], 0)


async def test_the_same_instance_from_somebody_else_is_taken_in(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Somebody sends it unasked, another C-MOVE brings it, and one of somebody else with the same Message ID: none is lost."""
    statuses: list[int | None] = []

    def meanwhile(order: Order) -> None:
        (dataset,) = order.selected
        with order.sending(originator=False, calling_ae="OTHER") as send:
            statuses.append(send(dataset))
        order.message_id, mine = order.message_id % 65535 + 1, order.message_id
        with order.sending() as send:
            statuses.append(send(dataset))
        order.message_id, order.pacs.caller = mine, "SOMEBODY"
        with order.sending() as send:
            statuses.append(send(dataset))
        order.pacs.caller = "GATEWAY"
        honest(order)

    here = bench(script=meanwhile)

    assert await ask(here, 0, tmp_path / "a") == ""

    uid = here.pacs.uids()[0]
    assert statuses == [0, 0, 0]
    assert (recorded(here), spooled(here) > 0) == ([uid], True)
    assert here.reception.arrived == [uid] * 3
    assert pydicom.dcmread(tmp_path / "a").SOPInstanceUID == uid


async def test_a_retrieval_of_the_same_study_counts_its_own_only(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """While the study is pulled, instances of it are captured; what is pulled is complete by what came for it."""
    here = bench()
    asked, answers = trio.Event(), list[str]()

    def slow(order: Order) -> None:
        if order.level == "STUDY":
            trio.from_thread.run_sync(asked.set, trio_token=token)
        honest(order)

    here.pacs.script = slow
    token = trio.lowlevel.current_trio_token()

    async def capture() -> None:
        await asked.wait()
        answers.extend([await ask(here, number, tmp_path / str(number)) for number in range(3)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(capture)
        verdict = await here.verdict()

    assert (verdict.kind, verdict.received, answers) == (VerdictKind.COMPLETE, 5, ["", "", ""])
    assert recorded(here) == sorted(here.reception.arrived) == sorted(here.pacs.uids())
    assert len(here.pacs.sent) == 8


@pytest.mark.parametrize("says", ["nothing", "another Message ID", "another AE title"])
async def test_a_source_that_does_not_say_why_it_sends_is_asked_once(
    bench: Callable[..., Bench], tmp_path: Path, says: str
) -> None:
    """Its instances may be anybody's and are kept. No capture is asked of it again, nor by a later process."""

    def anonymously(order: Order) -> None:
        asked = order.message_id
        if says == "another Message ID":
            order.message_id = asked % 65535 + 1
        if says == "another AE title":
            order.pacs.caller = "ARCHIVE"
        with order.sending(originator=says != "nothing") as send:
            status = send(order.selected[0])
        order.message_id = asked
        order.final(0x0000 if status == 0 else 0xA702, 1)

    here = bench(script=anonymously)

    assert await ask(here, 0, tmp_path / "a") == ANONYMOUS
    assert await ask(here, 1, tmp_path / "b") == ANONYMOUS

    assert (len(here.pacs.orders), recorded(here)) == (1, here.pacs.uids()[:1])
    assert [(tmp_path / name).exists() for name in "ab"] == [False, False]
    here.retriever._sources.clear()
    assert await ask(here, 2, tmp_path / "c") == ANONYMOUS
    assert len(here.pacs.orders) == 1


async def test_one_that_fails_while_another_comes_is_no_reason_not_to_ask_again(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    def failing(order: Order) -> None:
        with order.sending(originator=False, calling_ae="ARCHIVE") as send:
            send(order.selected[0])
        order.final(0xA702, 0, 1)

    here = bench(script=failing)
    assert "A702 (completed 0, failed 1)" in await ask(here, 0, tmp_path / "a")
    here.pacs.script = honest
    assert await ask(here, 1, tmp_path / "b") == ""


async def test_one_that_comes_after_the_final_response_is_waited_for(bench: Callable[..., Bench], tmp_path: Path) -> None:
    def afterwards(order: Order) -> None:
        order.final(0x0000, 1)

        def send_it() -> None:
            with order.sending() as send:
                send(order.selected[0])

        order.pacs.later(send_it)

    here = bench(script=afterwards, source={"settle_s": 1.0})
    assert await ask(here, 0, tmp_path / "a") == ""
    assert recorded(here) == []


async def test_what_comes_too_late_or_again_is_refused_and_not_kept(bench: Callable[..., Bench], tmp_path: Path) -> None:
    statuses: list[int | None] = []

    def again(order: Order) -> None:
        with order.sending() as send:
            statuses.extend(send(order.selected[0]) for _ in range(2))
        order.final(0x0000, 1)

        def late() -> None:
            with order.sending() as send:
                statuses.append(send(order.selected[0]))

        order.pacs.later(late)

    here = bench(script=again)
    assert await ask(here, 0, tmp_path / "a") == ""
    before = (tmp_path / "a").read_bytes()
    await until(lambda: len(statuses) == 3, "the third C-STORE")

    assert (statuses, recorded(here)) == ([0x0000, 0xC000, 0xC000], [])
    assert (tmp_path / "a").read_bytes() == before


async def test_why_it_did_not_come_is_said(bench: Callable[..., Bench], tmp_path: Path) -> None:
    unknown = bench(known=False)
    assert "register AE title GATEWAY" in await ask(unknown, 0, tmp_path / "a")
    unknown.pacs.destinations["GATEWAY"] = ("127.0.0.1", unknown.reception.port)
    unknown.pacs.script = lambda order: order.final(0x0000, 1)
    assert "the source answered 0000 (completed 1, failed 0)" in await ask(unknown, 0, tmp_path / "a")
    unknown.pacs.script = Order.abort
    assert "abort" in await ask(unknown, 0, tmp_path / "a")
    unknown.pacs.script = lambda order: order.final(0xA702) if len(unknown.pacs.orders) < 6 else honest(order)
    assert await ask(unknown, 0, tmp_path / "a") == ""


async def test_what_is_given_up_ends_the_move_and_is_refused(bench: Callable[..., Bench], tmp_path: Path) -> None:
    statuses: list[int | None] = []
    asked, given_up = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def held(order: Order) -> None:
        trio.from_thread.run_sync(asked.set, trio_token=token)
        order.wait_for_cancel()
        order.final(0xFE00)
        order.pacs.later(partial(late, order))

    def late(order: Order) -> None:
        assert given_up.wait(PATIENCE_S)
        with order.sending() as send:
            statuses.append(send(order.selected[0]))

    here = bench(script=held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, here, 0, tmp_path / "a")
        await asked.wait()
        nursery.cancel_scope.cancel()
    given_up.set()
    await until(lambda: statuses, "the late C-STORE")

    assert (statuses, recorded(here), (tmp_path / "a").exists()) == ([0xC000], [], False)


# The registry alone

INFO = AssociationInfo("a1", "ARCHIVE", "GATEWAY", "127.0.0.1", source="archive")
CT, LITTLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def sub_operation(message_id: int, uid: str = "1.2.3") -> StoreRequest:
    return StoreRequest(1, CT, uid, LITTLE, "GATEWAY", message_id)


class Elsewhere:
    """A storage service that must not be asked."""

    def receive(self, _association: AssociationInfo, _request: StoreRequest) -> Into:
        raise LookupError("taken in")


def test_one_that_breaks_off_may_come_again(tmp_path: Path) -> None:
    captures = Captures("GATEWAY")
    storage = Capturing(captures, Elsewhere())
    wanted = Capture("archive", "1.2.3", 7, Into(tmp_path / "a"))
    captures.open(wanted)

    first = storage.receive(INFO, sub_operation(7))
    first.write([memoryview(b"half")])
    with pytest.raises(Refusal):
        storage.receive(INFO, sub_operation(7))
    first.discard()
    assert ((tmp_path / "a").exists(), wanted.came) == (False, False)

    second = storage.receive(INFO, sub_operation(7))
    second.write([memoryview(b"all of it")])
    assert (second.commit(), wanted.came) == (0, True)
    assert (tmp_path / "a").read_bytes().endswith(b"all of it")


@pytest.mark.parametrize(
    ("association", "request_"),
    [
        (INFO, sub_operation(8)),
        (INFO, sub_operation(7, "1.2.4")),
        (INFO, StoreRequest(1, CT, "1.2.3", LITTLE, "OTHER", 7)),
        (INFO, StoreRequest(1, CT, "1.2.3", LITTLE)),
        (AssociationInfo("a2", "OTHER", "GATEWAY", "127.0.0.1", source="unasked"), sub_operation(7)),
    ],
    ids=["another C-MOVE", "another instance", "somebody else's C-MOVE", "no C-MOVE", "another source"],
)
def test_only_what_was_asked_for_is_captured(tmp_path: Path, association: AssociationInfo, request_: StoreRequest) -> None:
    captures = Captures("GATEWAY")
    captures.open(Capture("archive", "1.2.3", 7, Into(tmp_path / "a")))
    with pytest.raises(LookupError):
        Capturing(captures, Elsewhere()).receive(association, request_)


def test_an_unwritable_file_refuses_and_leaves_the_capture_open(tmp_path: Path) -> None:
    captures = Captures("GATEWAY")
    wanted = Capture("archive", "1.2.3", 7, Into(tmp_path / "nowhere" / "a"))
    captures.open(wanted)
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            Capturing(captures, Elsewhere()).receive(INFO, sub_operation(7))
        assert refused.value.status == 0xA700
    assert not wanted.taken


def test_a_retrieval_that_reuses_a_captures_message_id_owns_its_instances(tmp_path: Path) -> None:
    arrivals = Arrivals("GATEWAY")
    one = Capture("archive", "1.2.3", 7, Into(tmp_path / "a"))
    arrivals.captures.open(one)
    arrivals.captures.close(one)
    spec = JobSpec("pull", "1", "{}")
    arrivals.register(StudyState(retrieval_id=1, study="1.2", source="archive", spec=spec, nudge=lambda: None), 7)
    with pytest.raises(LookupError):
        Capturing(arrivals.captures, Elsewhere()).receive(INFO, sub_operation(7))


def test_a_reused_message_id_is_another_move_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    captures = Captures("GATEWAY")
    storage = Capturing(captures, Elsewhere())
    for number in range(1, REMEMBERED + 3):
        one = Capture("archive", "1.2.3", number, Into(tmp_path / "a"))
        captures.open(one)
        captures.close(one)
    captures.forget(500)
    for number in (1, 500):
        with pytest.raises(LookupError):
            storage.receive(INFO, sub_operation(number))
    with pytest.raises(Refusal):
        storage.receive(INFO, sub_operation(501))
