"""Jobs: what is asked how, what carries on after an interruption, what is left alone, and how a job is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from gateway.core.domain import VerdictKind
from gateway.core.errors import UsageError
from gateway.ledger.database.schema import jobs
from gateway.ledger.jobs import retrievals
from gateway.retrieve import (
    Event,
    JobEnded,
    JobStarted,
    Progress,
    PullRequest,
    Retriever,
    StudyEnded,
    StudyPlanned,
    Verdict,
    Waiting,
    context,
)
from tests.retrieve.conftest import DEADLINE_S, Bench, retriever, study
from tests.support.pacs import Order, honest
from tests.support.ports import free_port

Start = Callable[..., Bench]
COMPLETE, INCOMPLETE, EMPTY, FAILED = VerdictKind.COMPLETE, VerdictKind.INCOMPLETE, VerdictKind.EMPTY, VerdictKind.FAILED


def verdicts(events: list[Event]) -> list[Verdict]:
    return [event.verdict for event in events if isinstance(event, StudyEnded)]


def three_studies() -> list[Any]:
    return [dataset for seed in (1, 2, 3) for dataset in study(seed=seed)]


def states(desk: Bench) -> list[str]:
    with desk.ledger.read() as connection:
        return [row.state for row in connection.execute(jobs.select().order_by(jobs.c.id))]


async def test_accession_numbers_find_studies_and_those_without_match_are_empty(bench: Start) -> None:
    desk = bench(datasets=three_studies())

    events = await desk.pull(accession_numbers=("ACC1", "ACC3", "ACC9", "ACC1"))

    assert sorted((one.kind, one.asked) for one in verdicts(events)) == [
        (COMPLETE, "AccessionNumber ACC1"),
        (COMPLETE, "AccessionNumber ACC3"),
        (EMPTY, "AccessionNumber ACC9"),
    ]
    assert events[-1] == JobEnded(1, complete=2, empty=1)


async def test_an_answer_that_cannot_be_read_costs_its_key_only(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = bench(datasets=three_studies())

    def cut(dataset: Any, *arguments: Any) -> bytes | None:
        encoded = encode(dataset, *arguments)
        return encoded[:-1] if encoded and dataset.get("AccessionNumber") == "ACC2" else encoded

    monkeypatch.setattr("pynetdicom.service_class.encode", cut)
    events = await desk.pull(accession_numbers=("ACC1", "ACC2", "ACC3"))

    by_key = {one.asked: one for one in verdicts(events)}
    assert by_key["AccessionNumber ACC1"].kind is by_key["AccessionNumber ACC3"].kind is COMPLETE
    assert by_key["AccessionNumber ACC2"].kind is FAILED
    assert "ARCHIVE@127.0.0.1" in by_key["AccessionNumber ACC2"].note and "cannot be read" in by_key["AccessionNumber ACC2"].note
    assert events[-1] == JobEnded(1, complete=2, failed=1)


async def test_all_studies_of_a_patient_are_retrieved_once(bench: Start) -> None:
    datasets = three_studies()
    for dataset in datasets:
        dataset.PatientID = "P1"
    desk = bench(datasets=datasets)

    events = await desk.pull(patient_ids=("P1",))

    assert events[-1] == JobEnded(1, complete=3)
    assert sorted(desk.reception.arrived) == sorted(desk.pacs.uids())


async def test_studies_are_found_by_query_keys(bench: Start) -> None:
    desk = bench(datasets=three_studies())

    events = await desk.pull(query={"StudyDate": "20240229", "PatientID": "TEST2"})

    assert [one.study_instance_uid for one in verdicts(events)] == [str(desk.pacs.datasets[5].StudyInstanceUID)]


async def test_the_events_tell_the_course_of_a_study(bench: Start) -> None:
    desk = bench()

    events = await desk.pull(study_uids=(desk.study,))

    assert isinstance(events[0], JobStarted)
    assert isinstance(events[1], StudyPlanned)
    assert (events[1].expected, events[1].present, events[1].skipped) == (5, 0, 0)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].received == progress[-1].expected == 5
    assert [one.bytes for one in progress] == sorted(one.bytes for one in progress)


async def test_no_more_moves_run_at_a_time_than_the_source_may_have(bench: Start) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def counting(order: Order) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        honest(order)
        with lock:
            running -= 1

    desk = bench(datasets=three_studies(), script=counting)

    await desk.pull(study_uids=tuple({str(one.StudyInstanceUID) for one in desk.pacs.datasets}))

    assert most == 1


async def test_a_complete_job_given_again_is_a_new_job(bench: Start) -> None:
    desk = bench()
    await desk.pull(study_uids=(desk.study,))

    events = await desk.pull(study_uids=(desk.study,))

    assert events[0] == JobStarted(2, "archive", resumed=False)
    assert len(desk.pacs.orders) == 2


async def test_only_what_is_missing_is_asked_for_when_the_same_job_carries_on(bench: Start) -> None:
    def half(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected[:1]:
                send(dataset)
        order.final(0x0124)

    desk = bench(datasets=three_studies(), script=lambda order: half(order) if order.number == 2 else honest(order))
    studies = tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in desk.pacs.datasets))
    first = await desk.pull(study_uids=studies)
    assert sorted(one.kind for one in verdicts(first)) == [COMPLETE, COMPLETE, INCOMPLETE]
    (left,) = [one.study_instance_uid for one in verdicts(first) if one.kind is INCOMPLETE]
    asked = len(desk.pacs.orders)

    second = await desk.pull(study_uids=tuple(reversed(studies)))

    assert second[0] == JobStarted(1, "archive", resumed=True)
    assert second[-1] == JobEnded(1, complete=3)
    assert sum(event.earlier for event in second if isinstance(event, StudyEnded)) == 2
    again = desk.pacs.orders[asked:]
    assert {str(order.identifier.StudyInstanceUID) for order in again} == {left}
    assert sorted(desk.reception.arrived) == sorted(desk.pacs.uids())


async def test_leaving_a_job_stops_the_source_between_instances_and_it_resumes(bench: Start) -> None:
    answered = threading.Event()

    def until_cancelled(order: Order) -> None:
        pause = threading.Event()
        with order.sending() as send:
            for number, dataset in enumerate(order.selected, 1):
                # However slow the job is to leave, the source is still at work then.
                while number > 20 and not order.cancelled:
                    order.pending(len(order.selected) - number, number)
                    pause.wait(0.05)
                if order.cancelled:
                    break
                send(dataset)
                order.pending(len(order.selected) - number, number)
                pause.wait(0.2)
        order.final(0xFE00, completed=number)
        answered.set()

    desk = bench(datasets=study(series=(40,)), script=lambda order: until_cancelled(order) if order.number == 1 else honest(order))
    with trio.fail_after(DEADLINE_S):
        async with desk.retriever.pull(PullRequest("archive", study_uids=(desk.study,))) as events:
            async for event in events:
                if isinstance(event, Progress) and event.received:
                    break

    assert answered.is_set()
    assert states(desk) == ["stopped"]
    came = len(desk.reception.arrived)
    assert 0 < came < 40

    events = await desk.pull(study_uids=(desk.study,))

    assert events[0] == JobStarted(1, "archive", resumed=True)
    assert events[-1] == JobEnded(1, complete=1)
    assert len(desk.reception.arrived) == len(set(desk.reception.arrived)) == 40
    assert states(desk) == ["done"]


async def test_a_new_process_carries_on_where_the_old_one_was_killed(bench: Start) -> None:
    desk = bench(script=lambda order: honest(order) if order.number > 1 else order.final(0x0124))
    with desk.ledger.read():
        pass
    await desk.pull(study_uids=(desk.study,))
    desk.ledger.write(lambda connection: retrievals.stop_running_jobs(connection, now=1.0))
    another = retriever(desk.ledger, desk.reception, desk.settings, desk.orders)
    desk.reception.retriever = desk.retriever = another

    events = await desk.pull(study_uids=(desk.study,))

    assert events[0] == JobStarted(1, "archive", resumed=True)
    assert events[-1] == JobEnded(1, complete=1)


async def test_the_same_pull_does_not_run_twice_at_a_time(bench: Start) -> None:
    desk = bench()
    request = PullRequest("archive", study_uids=(desk.study,))

    async with desk.retriever.pull(request):
        with pytest.raises(UsageError, match="running already"):
            async with desk.retriever.pull(request):
                raise AssertionError


async def test_an_error_of_the_caller_stops_the_job_and_comes_out_as_it_was(bench: Start) -> None:
    desk = bench()

    with pytest.raises(KeyError):
        async with desk.retriever.pull(PullRequest("archive", study_uids=(desk.study,))) as events:
            await events.receive()
            raise KeyError


async def test_a_source_that_is_not_there_fails_the_job_at_once(bench: Start, free_port: Callable[[], int]) -> None:
    desk = bench(source_port=free_port())

    events = await desk.pull(study_uids=(desk.study, "1.2.3"))

    *_, ended = events
    assert isinstance(ended, JobEnded)
    assert (len(verdicts(events)), ended.failed, ended.all_complete) == (2, 2, False)
    assert "ARCHIVE" in ended.error


@pytest.mark.parametrize(("source", "says"), [("nowhere", "known: archive, unasked"), ("unasked", "has no port")])
async def test_a_source_that_cannot_be_asked_is_a_usage_error(bench: Start, source: str, says: str) -> None:
    desk = bench()

    with pytest.raises(UsageError, match=says):
        async with desk.retriever.pull(PullRequest(source, study_uids=("1.2",))):
            raise AssertionError


async def test_an_unknown_query_keyword_is_a_usage_error_and_starts_no_job(bench: Start) -> None:
    desk = bench()

    with pytest.raises(UsageError, match="Foo is no keyword"):
        async with desk.retriever.pull(PullRequest("archive", query={"Foo": "1"})):
            raise AssertionError

    assert states(desk) == []


async def test_nothing_is_moved_until_there_is_room(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "ROOM_LOOK_S", 0.01)
    room = [False, False, True]
    desk = bench(has_room=lambda: room.pop(0) if len(room) > 1 else room[0])
    before: list[int] = []

    def see(event: Event) -> None:
        if isinstance(event, Waiting):
            before.append(len(desk.pacs.orders))

    events = await desk.pull(study_uids=(desk.study,), see=see)

    assert before == [0]
    assert events[-1] == JobEnded(1, complete=1)


async def test_what_the_destinations_hold_is_not_moved_and_counts_as_skipped(bench: Start) -> None:
    held: set[str] = set()
    asked: list[tuple[str, str, set[str]]] = []

    def existing(source: str, study_uid: str, series: Any, _destinations: Any) -> set[str]:
        asked.append((source, study_uid, set(series)))
        return held

    desk = bench(existing=existing)
    held.update(desk.pacs.uids()[:1], desk.pacs.uids()[3:], {"1.2.3"})

    verdict = await desk.verdict(study_uids=(desk.study,), skip_existing=True)

    assert (verdict.kind, verdict.expected, verdict.received, verdict.skipped) == (COMPLETE, 5, 2, 3)
    assert sorted(desk.reception.arrived) == sorted(desk.pacs.uids()[1:3])
    assert [order.level for order in desk.pacs.orders] == ["IMAGE"]
    assert asked == [("archive", desk.study, {str(one.SeriesInstanceUID) for one in desk.pacs.datasets})]


async def test_a_study_that_the_destinations_hold_whole_is_not_moved_at_all(bench: Start) -> None:
    desk = bench(existing=lambda _source, _study, _series, _destinations: set(desk.pacs.uids()))

    verdict = await desk.verdict(study_uids=(desk.study,), skip_existing=True)

    assert (verdict.kind, verdict.received, verdict.skipped) == (COMPLETE, 0, 5)
    assert desk.pacs.orders == []


async def test_a_study_that_cannot_be_retrieved_does_not_stop_the_others(bench: Start) -> None:
    datasets = three_studies()
    bad = str(datasets[5].StudyInstanceUID)
    desk = bench(
        datasets=datasets,
        script=lambda order: order.final(0x0124) if order.identifier.StudyInstanceUID == bad else honest(order),
    )

    events = await desk.pull(study_uids=tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in datasets)))

    assert {one.study_instance_uid: one.kind for one in verdicts(events)}[bad] is FAILED
    assert events[-1] == JobEnded(1, complete=2, failed=1)


async def test_a_source_is_queried_at_each_level(bench: Start) -> None:
    desk = bench(datasets=three_studies())

    studies = await desk.retriever.find("archive", {"PatientID": "TEST2"})
    images = await desk.retriever.find(
        "archive", {"StudyInstanceUID": studies[0]["StudyInstanceUID"], "SeriesInstanceUID": ""}, "IMAGE", limit=3
    )

    assert [(one["PatientID"], one["NumberOfStudyRelatedInstances"]) for one in studies] == [("TEST2", "5")]
    assert len(images) == 3
    with pytest.raises(UsageError):
        await desk.retriever.find("archive", {"Nonsense": "1"})


async def test_cancelling_a_query_ends_its_association(bench: Start) -> None:
    hang = threading.Event()

    def never(_dataset: object, _finds: int) -> bool:
        hang.wait(20)
        return True

    desk = bench(lists=never)
    with trio.move_on_after(0.5) as scope:
        await desk.retriever.find("archive", {"PatientID": "TEST1"})
    hang.set()

    assert scope.cancelled_caught


def test_a_retriever_is_made_outside_of_trio(bench: Start) -> None:
    assert isinstance(bench().retriever, Retriever)


@pytest.mark.parametrize("times", [1, 3])
async def test_responses_after_the_final_one_cost_no_study(bench: Start, times: int) -> None:
    def again(order: Order) -> None:
        honest(order)
        for _ in range(times):
            order.final(0x0000, 3)

    datasets = three_studies()
    desk = bench(datasets=datasets, script=again)

    events = await desk.pull(study_uids=tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in datasets)))

    assert [one.kind for one in verdicts(events)] == [COMPLETE] * 3
    assert events[-1] == JobEnded(1, complete=3)


async def test_a_key_that_cannot_be_asked_about_costs_the_others_nothing(bench: Start) -> None:
    datasets = three_studies()
    uids = tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in datasets))

    def breaks(dataset: Dataset, _finds: int) -> bool:
        query = desk.pacs.finds[-1]
        if query.QueryRetrieveLevel == "STUDY" and query.StudyInstanceUID == uids[1]:
            raise OSError("the archive's own trouble")
        return True

    desk = bench(datasets=datasets, lists=breaks)

    events = await desk.pull(study_uids=uids)

    kinds = {one.study_instance_uid: one.kind for one in verdicts(events)}
    assert kinds == {uids[0]: COMPLETE, uids[1]: FAILED, uids[2]: COMPLETE}


async def test_every_study_of_a_job_whose_source_is_away_is_in_its_report(bench: Start) -> None:
    desk = bench(source_port=free_port())

    events = await desk.pull(study_uids=("1.2.3", "1.2.4", "1.2.5"))

    assert [one.study_instance_uid for one in verdicts(events)] == ["1.2.3", "1.2.4", "1.2.5"]
    assert all(one.kind is FAILED and "could not be asked" in one.note for one in verdicts(events))
    assert isinstance(events[-1], JobEnded)
    assert (events[-1].failed, events[-1].complete) == (3, 0)


async def test_studies_after_the_source_went_away_are_reported_as_not_asked(bench: Start) -> None:
    datasets = three_studies()
    uids = tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in datasets))
    uids += tuple(f"1.2.{number}" for number in range(60))
    desk = bench(datasets=datasets, refuse_find=lambda level, finds: 0xA700 if level == "STUDY" and finds > 25 else None)

    events = await desk.pull(study_uids=uids)

    assert sorted(one.study_instance_uid for one in verdicts(events)) == sorted(uids)
    assert isinstance(events[-1], JobEnded)
