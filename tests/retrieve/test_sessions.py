"""Jobs whose studies a planner names one by one: parts of studies, and where what comes goes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio
from sqlalchemy import select

from gateway.core.domain import DeliveryState, Priority, Provenance, Purpose, VerdictKind
from gateway.core.errors import UsageError
from gateway.ledger.database.schema import deliveries, instances, jobs
from gateway.ledger.database.transitions import move
from gateway.ledger.jobs import retrievals
from gateway.retrieve import JobSpec, Verdict, Wanted
from tests.retrieve.conftest import DEADLINE_S, Bench, study
from tests.support.pacs import Order, honest

Start = Callable[..., Bench]
COMPLETE, EMPTY = VerdictKind.COMPLETE, VerdictKind.EMPTY


def spec(*destinations: str, name: str = "night", priority: Priority = Priority.NORMAL) -> JobSpec:
    return JobSpec("sync", name, json.dumps({"name": name}), destinations, priority)


async def retrieved(desk: Bench, wanted: Wanted, what: JobSpec, **how: bool) -> Verdict:
    with trio.fail_after(DEADLINE_S):
        async with desk.retriever.job("archive", what) as session:
            return await session.retrieve(wanted, **how)


def owed(desk: Bench) -> dict[str, set[str]]:
    """SOP Instance UID to the destinations that it has a delivery to."""
    desk.reception.recorder.flush()
    with desk.ledger.read() as connection:
        found: dict[str, set[str]] = {}
        columns = (instances.c.sop_instance_uid, deliveries.c.destination)
        for uid, name in connection.execute(select(*columns).join_from(instances, deliveries)):
            found.setdefault(uid, set()).add(name)
    return found


def settle(desk: Bench, uids: list[str]) -> None:
    """Have the deliveries of `uids` verified, as a destination would that holds them."""
    with desk.ledger.read() as connection:
        mine = select(deliveries.c.id).join(instances).where(instances.c.sop_instance_uid.in_(uids))
        ids = list(connection.execute(mine).scalars())
    for state in (DeliveryState.SENDING, DeliveryState.VERIFIED):
        desk.ledger.write(partial(move, delivery_ids=ids, new=state, now=time.time()))


def series_of(desk: Bench, number: int) -> tuple[str, list[str]]:
    """The UID of the nth series that the PACS lists, and its SOP Instance UIDs."""
    names = list(dict.fromkeys(str(one.SeriesInstanceUID) for one in desk.pacs.datasets))
    name = names[number - 1]
    return name, [str(one.SOPInstanceUID) for one in desk.pacs.datasets if str(one.SeriesInstanceUID) == name]


async def test_what_comes_for_a_job_goes_where_the_job_says(bench: Start) -> None:
    desk = bench()

    verdict = await retrieved(desk, Wanted(desk.study), spec("copy", "second", priority=Priority.LOW))

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)
    assert owed(desk) == {uid: {"copy", "second"} for uid in desk.pacs.uids()}
    with desk.ledger.read() as connection:
        (job,) = connection.execute(select(jobs))
    assert (job.kind, job.state, json.loads(job.destinations), job.priority) == ("sync", "done", ["copy", "second"], 0)


async def test_of_some_series_only_those_are_moved_and_judged(bench: Start) -> None:
    desk = bench()
    series, uids = series_of(desk, 2)

    verdict = await retrieved(desk, Wanted(desk.study, series=frozenset({series})), spec())

    assert (verdict.kind, verdict.expected, verdict.received, verdict.note) == (COMPLETE, 2, 2, "")
    assert sorted(desk.reception.arrived) == sorted(uids)
    assert [(order.level, order.identifier.SeriesInstanceUID) for order in desk.pacs.orders] == [("SERIES", series)]


async def test_of_some_instances_only_those_are_moved_and_judged(bench: Start) -> None:
    desk = bench()
    wanted = {series_of(desk, 1)[1][0], series_of(desk, 2)[1][1]}

    verdict = await retrieved(desk, Wanted(desk.study, instances=frozenset(wanted)), spec())

    assert (verdict.kind, verdict.expected) == (COMPLETE, 2)
    assert set(desk.reception.arrived) == wanted
    assert {order.level for order in desk.pacs.orders} == {"IMAGE"}


async def test_all_named_instances_of_a_series_are_not_asked_for_as_a_series(bench: Start) -> None:
    """It may have grown since they were named."""
    desk = bench()
    _, uids = series_of(desk, 2)

    verdict = await retrieved(desk, Wanted(desk.study, instances=frozenset(uids)), spec())

    assert (verdict.kind, verdict.received) == (COMPLETE, 2)
    assert {order.level for order in desk.pacs.orders} == {"IMAGE"}


async def test_a_part_that_the_source_does_not_have_is_empty(bench: Start) -> None:
    desk = bench()

    verdict = await retrieved(desk, Wanted(desk.study, series=frozenset({"1.2.3.4"})), spec())

    assert (verdict.kind, verdict.expected, desk.pacs.orders) == (EMPTY, 0, [])


async def test_a_part_is_never_judged_by_counts_without_image_level(bench: Start) -> None:
    desk = bench(refuse_find=lambda level, _finds: 0xA900 if level == "IMAGE" else None)
    uid = series_of(desk, 1)[1][0]

    verdict = await retrieved(desk, Wanted(desk.study, instances=frozenset({uid})), spec())

    assert verdict.kind is VerdictKind.INCOMPLETE


async def test_what_a_destination_lost_since_is_moved_again_and_delivered_again(bench: Start) -> None:
    desk = bench()
    uids = desk.pacs.uids()
    await retrieved(desk, Wanted(desk.study), spec("copy"))
    settle(desk, uids)
    desk.reception.arrived.clear()

    wanted = Wanted(desk.study, instances=frozenset(uids[:1]))
    verdict = await retrieved(desk, wanted, spec("copy", name="next night"))

    assert (verdict.kind, desk.reception.arrived) == (COMPLETE, uids[:1])
    with desk.ledger.read() as connection:
        pending = select(instances.c.sop_instance_uid).join(deliveries).where(deliveries.c.state == DeliveryState.PENDING)
        assert list(connection.execute(pending).scalars()) == uids[:1]


async def test_what_is_on_its_way_to_the_destination_is_not_moved_again(bench: Start) -> None:
    desk = bench()
    await retrieved(desk, Wanted(desk.study), spec("copy"))
    desk.reception.arrived.clear()

    verdict = await retrieved(desk, Wanted(desk.study), spec("copy", name="next night"))

    assert (verdict.kind, verdict.received, desk.reception.arrived) == (COMPLETE, 5, [])


async def test_the_same_job_carries_on_and_a_fresh_retrieval_begins_anew(bench: Start) -> None:
    desk = bench()
    first = await retrieved(desk, Wanted(desk.study), spec("copy"))
    settle(desk, desk.pacs.uids())
    desk.reception.arrived.clear()
    with pytest.raises(RuntimeError):
        async with desk.retriever.job("archive", spec("copy", name="crashing")):
            raise RuntimeError("a planner's own")

    async with desk.retriever.job("archive", spec("copy", name="crashing")) as session:
        assert session.resumed
        again = await session.retrieve(Wanted(desk.study), fresh=True)
        once_more = await session.retrieve(Wanted(desk.study))

    assert first.retrieval_id != again.retrieval_id == once_more.retrieval_id
    assert (again.kind, sorted(desk.reception.arrived)) == (COMPLETE, sorted(desk.pacs.uids()))


async def test_a_job_runs_once_at_a_time_and_names_destinations_that_there_are(bench: Start) -> None:
    desk = bench()

    async with desk.retriever.job("archive", spec()):
        with pytest.raises(UsageError, match="running already"):
            async with desk.retriever.job("archive", spec()):
                raise AssertionError("never here")
    with pytest.raises(UsageError, match="no destination is called 'nowhere'"):
        async with desk.retriever.job("archive", spec("nowhere")):
            raise AssertionError("never here")


async def test_studies_of_one_job_are_retrieved_side_by_side(bench: Start) -> None:
    datasets = [dataset for seed in (1, 2, 3) for dataset in study(seed=seed)]
    desk = bench(datasets=datasets, source={"moves": 2})
    kinds = list[VerdictKind]()

    async with desk.retriever.job("archive", spec()) as session:

        async def one(uid: str) -> None:
            kinds.append((await session.retrieve(Wanted(uid))).kind)

        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as nursery:
                for uid in {str(dataset.StudyInstanceUID) for dataset in datasets}:
                    nursery.start_soon(one, uid)

    assert kinds == [COMPLETE] * 3


async def test_an_instance_found_without_a_row_is_its_open_retrievals(bench: Start) -> None:
    desk = bench()
    async with desk.retriever.job("archive", spec("copy")) as session:
        verdict = await session.retrieve(Wanted(desk.study))
    uid = desk.pacs.uids()[0]

    def purpose(source: str | None) -> Purpose | None:
        with desk.ledger.read() as connection:
            return retrievals.purpose_of(connection, Provenance("ARCHIVE", "GATEWAY", "127.0.0.1", "a1", source), uid)

    assert purpose("archive") is None
    desk.ledger.write(
        partial(retrievals.open_retrieval, job_id=session.job_id, source="archive", study_instance_uid=desk.study, now=time.time())
    )
    assert purpose("archive") == purpose(None) == Purpose(verdict.retrieval_id or 0, ("copy",))
    assert purpose("unasked") is None


async def test_an_urgent_study_preempts_a_migration_that_then_resumes(bench: Start) -> None:
    datasets = [dataset for seed in (1, 2) for dataset in study(seed=seed, series=(3,))]
    big, urgent = (str(datasets[number].StudyInstanceUID) for number in (0, 3))
    under_way, sent = threading.Event(), list[str]()

    def script(order: Order) -> None:
        """Send one instance of the big study, then nothing until C-CANCEL comes."""
        sent.append(str(order.identifier.StudyInstanceUID))
        if order.number > 1:
            return honest(order)
        with order.sending() as send:
            send(order.selected[0])
        order.pending(2, 1)
        under_way.set()
        order.wait_for_cancel()
        return order.final(0xFE00, 1)

    desk = bench(datasets=datasets, script=script, source={"progress_timeout_s": DEADLINE_S})
    ended = list[str]()

    async def migrate() -> None:
        async with desk.retriever.job("archive", spec("copy", priority=Priority.LOW)) as session:
            assert (await session.retrieve(Wanted(big))).kind is COMPLETE
        ended.append("migration")

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(migrate)
            await trio.to_thread.run_sync(under_way.wait)
            async with desk.retriever.job("archive", spec("copy", name="now", priority=Priority.HIGH)) as session:
                assert (await session.retrieve(Wanted(urgent))).kind is COMPLETE
            ended.append("urgent")

    assert (ended, sent) == (["urgent", "migration"], [big, urgent, big])
    assert sorted(desk.reception.arrived) == sorted(desk.pacs.uids())
    with desk.ledger.read() as connection:
        rows = select(instances.c.study_instance_uid, deliveries.c.priority).join_from(instances, deliveries)
        assert {tuple(row) for row in connection.execute(rows)} == {(big, Priority.LOW), (urgent, Priority.HIGH)}


async def test_an_urgent_request_raises_the_priority_of_waiting_deliveries(bench: Start) -> None:
    desk = bench()
    await retrieved(desk, Wanted(desk.study), spec("copy", priority=Priority.LOW))
    desk.reception.arrived.clear()

    await retrieved(desk, Wanted(desk.study), spec("copy", name="now", priority=Priority.HIGH))

    assert desk.reception.arrived == []
    with desk.ledger.read() as connection:
        assert set(connection.execute(select(deliveries.c.priority)).scalars()) == {Priority.HIGH}
