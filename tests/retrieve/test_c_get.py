"""Studies that come by C-GET: what is asked for in which one, the same verdicts as with C-MOVE, and which operation is used."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.association.scu.offers import MAX_CLASSES
from gateway.core.domain import Basis, Purpose, VerdictKind
from gateway.ledger.jobs import retrievals
from gateway.ledger.peers import learned
from gateway.retrieve import JobEnded, JobStarted, Progress, PullRequest, Repairing, operations
from gateway.retrieve.arrivals import Heard
from gateway.retrieve.recovery import End, Level, Method, Round, Step, Target, Way, in_vain, methods, parts, remaining
from gateway.retrieve.verdict import Expectation
from tests.retrieve.conftest import DEADLINE_S, Bench, retriever, study
from tests.support.accepting import Storage
from tests.support.pacs import Order, honest

Start = Callable[..., Bench]
COMPLETE, INCOMPLETE, FAILED = VerdictKind.COMPLETE, VerdictKind.INCOMPLETE, VerdictKind.FAILED
STUDY = "1.2.3"
SOURCE = AssociationInfo("get-1", "ARCHIVE", "GATEWAY", "127.0.0.1", source="archive")


def sends_all(_nth: int, _uid: str) -> int | None:
    return None


def known(desk: Bench) -> str | None:
    with desk.ledger.read() as connection:
        return learned.get(connection, "source:archive", learned.RETRIEVE, now=0)


def expectation(counts: dict[str, int], *, told: bool = True) -> Expectation:
    """Series with so many instances; the nth instance of each has the nth SOP class."""
    listed = {f"{series}.{number}": series for series, count in counts.items() for number in range(count)}
    classes = {uid: f"1.9.{uid.rpartition('.')[2]}" for uid in listed} if told else {}
    return Expectation(Basis.UIDS, len(listed), listed, tuple(counts), sop_classes=classes)


def test_a_target_whose_classes_fit_one_association_is_not_split() -> None:
    target = Target(Level.STUDY, STUDY)
    (part,) = parts(target, expectation({"1.1": 3, "1.2": 2}))
    assert part.targets == (target,)
    assert part.sop_classes == {"1.9.0", "1.9.1", "1.9.2"}
    assert len(part.uids) == 5


@pytest.mark.parametrize("level", [Level.SERIES, Level.IMAGE])
def test_only_the_classes_of_what_is_asked_for_count(level: Level) -> None:
    target = Target(level, STUDY, "1.2", ("1.2.0",) if level is Level.IMAGE else ())
    (part,) = parts(target, expectation({"1.1": 7, "1.2": 1}))
    assert (part.uids, part.sop_classes) == (("1.2.0",), {"1.9.0"})


@given(st.integers(1, 60))
def test_every_instance_of_many_classes_is_in_one_part(count: int) -> None:
    wanted = expectation({"1.1": count})
    found = parts(Target(Level.STUDY, STUDY), wanted)
    assert sorted(uid for part in found for uid in part.uids) == sorted(wanted.listed)
    assert all(part.sop_classes and len(part.sop_classes) <= MAX_CLASSES for part in found)
    if len(found) > 1:
        assert sorted(uid for part in found for target in part.targets for uid in target.uids) == sorted(wanted.listed)


def test_where_a_class_is_not_told_all_are_offered() -> None:
    assert parts(Target(Level.STUDY, STUDY), expectation({"1.1": 2}, told=False))[0].sop_classes is None
    assert parts(Target(Level.STUDY, STUDY), Expectation(Basis.COUNTS, 5, {}))[0].sop_classes is None


def test_what_came_is_not_asked_for_again() -> None:
    target, wanted = Target(Level.STUDY, STUDY), expectation({"1.1": 2, "1.2": 2})
    (part,) = parts(target, wanted)
    assert remaining(part, set(), target, wanted) == (target,)
    assert remaining(part, set(wanted.listed), target, wanted) == ()
    assert remaining(part, {"1.1.0", "1.2.0", "1.2.1"}, target, wanted) == (Target(Level.IMAGE, STUDY, "1.1", ("1.1.1",)),)


def test_what_has_no_uids_is_asked_for_whole() -> None:
    target, wanted = Target(Level.STUDY, STUDY), Expectation(Basis.COUNTS, 5, {})
    (part,) = parts(target, wanted)
    assert remaining(part, {"1.1.0"}, target, wanted) == (target,)


def test_what_is_configured_holds_and_auto_begins_with_what_worked() -> None:
    assert methods("move", Method.GET) == (Method.MOVE,)
    assert methods("get", Method.MOVE) == (Method.GET,)
    assert methods("auto", None) == methods("auto", Method.MOVE) == (Method.MOVE, Method.GET)
    assert methods("auto", Method.GET) == (Method.GET, Method.MOVE)


@pytest.mark.parametrize(
    ("end", "gained", "proven", "vain"),
    [
        (End.REFUSED, 0, True, True),
        (End.REFUSED, 0, False, True),
        (End.ANSWERED, 0, False, True),
        (End.STALLED, 0, False, True),
        (End.BROKEN, 0, False, True),
        (End.BUSY, 0, False, False),
        (End.ANSWERED, 0, True, False),
        (End.ANSWERED, 1, False, False),
        (End.REFUSED, 1, False, False),
    ],
)
def test_the_other_operation_is_tried_where_this_one_seems_not_to_work(end: End, gained: int, proven: bool, vain: bool) -> None:
    assert in_vain([Round(Step(Way.FIRST, "j2k-first"), end, gained)], proven=proven) is vain


def test_every_piece_of_an_instance_is_a_sign_of_life() -> None:
    storage = Storage()
    heard = Heard(storage)
    reception = heard.receive(SOURCE, StoreRequest(1, "1.2", "1.2.3", "1.2.840.10008.1.2.1"))
    signs = [heard.last]
    for _ in range(3):
        reception.write([memoryview(b"data")])
        signs.append(heard.last)
    assert reception.commit() == 0
    assert 0.0 < signs[0] < signs[1] < signs[2] < signs[3]
    assert bytes(storage.committed[0].data_set) == b"data" * 3


async def test_a_study_comes_whole_by_one_c_get(bench: Start) -> None:
    desk = bench(gets=sends_all, source={"retrieve": "get"}, known=False)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.expected, verdict.received, verdict.note) == (COMPLETE, 5, 5, "")
    assert verdict.bytes > 5 * 128
    assert [str(order.QueryRetrieveLevel) for order in desk.pacs.get_orders] == ["STUDY"]
    assert desk.pacs.orders == []
    assert known(desk) is None, "nothing was to be found out"


async def test_what_came_was_sent_by_the_source_for_its_retrieval(bench: Start) -> None:
    desk = bench(gets=sends_all, source={"retrieve": "get"}, known=False)
    seen = []
    correlate = desk.retriever.correlate

    def watching(provenance: object, uid: str) -> Purpose | None:
        purpose = correlate(provenance, uid)  # type: ignore[arg-type]
        seen.append((provenance, purpose))
        return purpose

    desk.retriever.correlate = watching  # type: ignore[method-assign]
    verdict = await desk.verdict()

    provenance, purpose = seen[0]
    assert (provenance.calling_ae, provenance.called_ae, provenance.source) == ("ARCHIVE", "GATEWAY", "archive")
    assert provenance.move_originator_ae == "GATEWAY"
    assert {each.retrieval_id for _, each in seen} == {verdict.retrieval_id}
    assert purpose.destinations is None


async def test_what_failed_is_asked_for_again(bench: Start) -> None:
    desk = bench(gets=lambda nth, _uid: 0xC000 if nth == 3 else None, source={"retrieve": "get"})

    assert (await desk.verdict()).kind is COMPLETE
    assert [str(order.QueryRetrieveLevel) for order in desk.pacs.get_orders][:2] == ["STUDY", "IMAGE"]
    assert len(set(desk.reception.arrived)) == len(desk.reception.arrived) == 5


async def test_an_instance_that_we_cannot_take_now_is_asked_for_again(bench: Start) -> None:
    desk = bench(gets=sends_all, source={"retrieve": "get"}, refuse=lambda nth, _uid: 0xA700 if nth == 2 else None)

    assert (await desk.verdict()).kind is COMPLETE


async def test_an_instance_that_never_comes_is_missing(bench: Start) -> None:
    desk = bench(source={"retrieve": "get"}, gets=sends_all)
    lost = desk.pacs.uids()[1]
    desk.pacs.gets = lambda _nth, uid: 0xC000 if uid == lost else None

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.missing) == (INCOMPLETE, (lost,))
    assert "C-GET: the source answered" in verdict.note


async def test_a_source_without_c_get_says_so(bench: Start) -> None:
    desk = bench(source={"retrieve": "get"})

    verdict = await desk.verdict()

    assert verdict.kind is FAILED
    assert verdict.note.startswith("C-GET: ")
    assert "none of 64 presentation contexts was accepted" in verdict.note
    assert desk.pacs.orders == []


@pytest.mark.parametrize("why", ["unknown move destination", "it cannot reach us"])
async def test_a_source_that_cannot_send_to_us_is_asked_by_c_get_from_then_on(bench: Start, why: str) -> None:
    def unreachable(order: Order) -> None:
        order.final(0xA702, failed=5, failed_uids=order.pacs.uids())

    desk = bench(gets=sends_all, source={"retrieve": "auto"}, script=unreachable, known=why == "it cannot reach us")

    events = await desk.pull(study_uids=(desk.study,))

    assert events[-1] == JobEnded(1, complete=1)
    assert [event.step for event in events if isinstance(event, Repairing)] == ["get"]
    assert (len(desk.pacs.orders), len(desk.pacs.get_orders)) == (1, 1)
    assert known(desk) == "get"

    desk.reception.retriever = desk.retriever = retriever(desk.ledger, desk.reception, desk.settings, desk.orders)
    assert (await desk.pull(study_uids=(desk.study,)))[-1] == JobEnded(2, complete=1)
    assert (len(desk.pacs.orders), len(desk.pacs.get_orders)) == (1, 2)


async def test_a_source_that_sends_is_not_asked_by_c_get(bench: Start) -> None:
    desk = bench(gets=sends_all, source={"retrieve": "auto"})

    assert (await desk.verdict()).kind is COMPLETE
    assert desk.pacs.get_orders == []
    assert known(desk) == "move"


async def test_where_c_get_does_not_work_either_the_c_move_is_what_is_told_of(bench: Start) -> None:
    desk = bench(source={"retrieve": "auto"}, known=False)

    verdict = await desk.verdict()

    assert verdict.kind is FAILED
    assert "does not know us as a move destination (A801)" in verdict.note
    assert known(desk) is None


async def test_where_c_get_does_not_work_either_c_move_goes_on(bench: Start) -> None:
    """The first C-MOVE brought nothing, which the second makes good."""

    def second_time(order: Order) -> None:
        order.final(0xA702, failed=5, failed_uids=order.pacs.uids()) if order.number == 1 else honest(order)

    desk = bench(source={"retrieve": "auto"}, script=second_time)

    assert (await desk.verdict()).kind is COMPLETE
    assert len(desk.pacs.orders) > 1


async def test_a_source_that_lost_c_get_is_asked_by_c_move_again(bench: Start) -> None:
    desk = bench(source={"retrieve": "auto"})
    desk.ledger.write(lambda connection: learned.put(connection, "source:archive", learned.RETRIEVE, "get", now=0, expires_at=None))

    assert (await desk.verdict()).kind is COMPLETE
    assert known(desk) == "move"


async def test_leaving_a_job_stops_the_c_get_between_instances_and_it_resumes(bench: Start) -> None:
    pause = threading.Event()

    def slowly(nth: int, _uid: str) -> int | None:
        # However slow the job is to leave, the source is still at work then.
        pause.wait(0.2 if nth < 20 else DEADLINE_S)
        return None

    desk = bench(datasets=study(series=(40,)), gets=slowly, source={"retrieve": "get"}, known=False)
    with trio.fail_after(DEADLINE_S):
        async with desk.retriever.pull(PullRequest("archive", study_uids=(desk.study,))) as events:
            async for event in events:
                if isinstance(event, Progress) and event.received:
                    break

    came = len(desk.reception.arrived)
    assert 0 < came < 40
    pause.set()
    events = await desk.pull(study_uids=(desk.study,))

    assert events[0] == JobStarted(1, "archive", resumed=True)
    assert events[-1] == JobEnded(1, complete=1)
    assert len(desk.reception.arrived) == len(set(desk.reception.arrived)) == 40
    with desk.ledger.read() as connection:
        (row,) = retrievals.retrievals_of(connection, job_id=1)
    assert row.verdict is COMPLETE


async def test_a_source_that_says_nothing_and_sends_nothing_has_stalled(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CANCEL_GRACE_S", 0.2)
    stalled = threading.Event()

    def stall(nth: int, _uid: str) -> int | None:
        if nth == 2:
            assert stalled.wait(DEADLINE_S)
            return 0xC000
        return None

    desk = bench(gets=stall, source={"retrieve": "get", "progress_timeout_s": 0.3}, known=False)

    def see(event: object) -> None:
        if isinstance(event, Repairing):
            stalled.set()

    try:
        assert (await desk.pull(see=see, study_uids=(desk.study,)))[-1] == JobEnded(1, complete=1)
    finally:
        stalled.set()


async def test_a_source_that_stops_at_one_instance_each_time_costs_that_one(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "CANCEL_GRACE_S", 0.2)
    monkeypatch.setattr(operations, "GET_QUIET_S", 0.3)
    over = threading.Event()
    unlucky: list[str] = []

    def stall(_nth: int, uid: str) -> int | None:
        if uid == unlucky[0]:
            over.wait(DEADLINE_S)
            return 0xC000
        return None

    desk = bench(gets=stall, source={"retrieve": "get", "progress_timeout_s": 60.0}, known=False)
    unlucky.append(desk.pacs.uids()[1])
    try:
        # With the time that a source may take before it begins, this would not end in time.
        verdict = await desk.verdict()
    finally:
        over.set()

    assert (verdict.kind, verdict.received, verdict.missing) == (VerdictKind.INCOMPLETE, 4, (unlucky[0],))
    assert "stalled" in verdict.note


async def test_a_source_that_stops_in_the_middle_of_one_study_costs_that_study(
    bench: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "CANCEL_GRACE_S", 0.2)
    monkeypatch.setattr(operations, "GET_QUIET_S", 0.3)
    over = threading.Event()
    datasets = [*study(seed=1), *study(seed=2), *study(seed=3)]
    stuck = {str(one.SOPInstanceUID) for one in datasets[6:10]}

    def stall(_nth: int, uid: str) -> int | None:
        if uid in stuck:
            over.wait(DEADLINE_S)
            return 0xC000
        return None

    desk = bench(datasets=datasets, gets=stall, source={"retrieve": "get", "progress_timeout_s": 60.0}, known=False)
    try:
        events = await desk.pull(study_uids=tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in datasets)))
    finally:
        over.set()

    assert events[-1] == JobEnded(1, complete=2, incomplete=1)
