"""Complete means proved: ways to a verdict that says so although something is missing, or that something is although all came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import update

from gateway.association.dimse.identifier import encode_identifier
from gateway.association.scu.requestor import RemoteAE, associate
from gateway.association.upper.contexts import ProposedContext
from gateway.config.settings import ListenTlsTable, TlsTable
from gateway.core.domain import Basis, VerdictKind
from gateway.ledger.database.schema import instances, retrievals
from gateway.ledger.peers import learned
from gateway.retrieve import JobEnded, Progress, PullRequest, StudyEnded, Waiting
from gateway.retrieve.recovery import Level, Target, first_targets
from gateway.retrieve.verdict import Expectation
from gateway.security.tls import acceptor_context, requestor_context
from tests.retrieve.conftest import Bench, study
from tests.support.certificates import MakeCertificate
from tests.support.pacs import Order, Refused, honest
from tests.support.steps import steps
from tests.support.waiting import PATIENCE_S

Start = Callable[..., Bench]
COMPLETE, INCOMPLETE, FAILED = VerdictKind.COMPLETE, VerdictKind.INCOMPLETE, VerdictKind.FAILED


def two_studies_that_share_a_uid() -> list[Dataset]:
    """The first instance of either study has the same SOP Instance UID; the contents differ."""
    first, second = study(seed=1, series=(3,)), study(seed=2, series=(3,))
    second[0].SOPInstanceUID = second[0].file_meta.MediaStorageSOPInstanceUID = first[0].SOPInstanceUID
    return [*first, *second]


async def kinds(desk: Bench) -> dict[str, VerdictKind]:
    uids = tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in desk.pacs.datasets))
    events = await desk.pull(study_uids=uids)
    return {event.verdict.study_instance_uid: event.verdict.kind for event in events if isinstance(event, StudyEnded)}


@pytest.mark.parametrize("originator", [True, False])
async def test_an_instance_of_another_study_with_the_same_uid_does_not_stand_in(bench: Start, originator: bool) -> None:
    datasets = two_studies_that_share_a_uid()
    lost = datasets[3]

    def keeps_one(order: Order) -> None:
        with order.sending(originator=originator) as send:
            for dataset in order.selected:
                if dataset is not lost:
                    send(dataset)
        order.final(0x0000, completed=len(order.selected))

    desk = bench(datasets=datasets, script=keeps_one)

    assert await kinds(desk) == {str(datasets[0].StudyInstanceUID): COMPLETE, str(lost.StudyInstanceUID): INCOMPLETE}


async def test_studies_that_share_a_uid_are_complete_and_one_notes_a_conflict(bench: Start) -> None:
    desk = bench(datasets=two_studies_that_share_a_uid())
    events = await desk.pull(study_uids=tuple(dict.fromkeys(str(one.StudyInstanceUID) for one in desk.pacs.datasets)))

    ended = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert [verdict.kind for verdict in ended] == [COMPLETE, COMPLETE]
    assert sum("1 instance came with other content" in verdict.note for verdict in ended) == 1


async def test_a_source_too_busy_for_a_query_is_asked_again(bench: Start) -> None:
    desk = bench(refuse_find=lambda _level, finds: 0xA700 if finds in (1, 3, 6) else None)
    waits: list[str] = []

    events = await desk.pull(
        study_uids=(desk.study,), see=lambda event: waits.append(event.reason) if isinstance(event, Waiting) else None
    )

    (ended,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert (ended.kind, ended.basis) == (COMPLETE, Basis.UIDS)
    assert waits == ["busy"] * 3


async def test_a_source_always_too_busy_for_image_level_is_judged_by_counts(bench: Start) -> None:
    desk = bench(refuse_find=lambda level, _finds: 0xA700 if level == "IMAGE" else None)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.basis) == (COMPLETE, Basis.COUNTS)


async def test_answered_instances_are_recorded_before_a_study_is_judged(bench: Start) -> None:
    """Neither is it missing, so that it is asked for again, nor is the source one that sends after its final response."""
    go_on = threading.Event()

    def while_the_ledger_is_slow(order: Order) -> None:
        desk.ledger.submit(lambda _connection: go_on.wait(PATIENCE_S))
        honest(order)
        threading.Timer(0.6, go_on.set).start()

    desk = bench(script=while_the_ledger_is_slow)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)
    assert len(desk.pacs.orders) == 1
    with desk.ledger.read() as connection:
        assert learned.get(connection, "source:archive", learned.ASYNCHRONOUS, now=0) is None


async def test_answered_instances_that_cannot_be_recorded_fail_the_pull(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = bench(source={"settle_s": 0.05})
    go_on = threading.Event()

    def while_the_ledger_hangs(order: Order) -> None:
        desk.ledger.submit(lambda _connection: go_on.wait(PATIENCE_S))
        honest(order)

    desk.pacs.script = while_the_ledger_hangs
    monkeypatch.setattr(desk.reception.recorder.flush.__func__, "__defaults__", (0.2,))
    threading.Timer(2.0, go_on.set).start()

    events = await desk.pull(study_uids=(desk.study,))

    (ended,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert ended.kind is FAILED
    assert "not recorded" in ended.note
    assert isinstance(events[-1], JobEnded)
    assert "not recorded" in events[-1].error


async def test_a_resumed_job_fetches_a_study_again_whose_bytes_were_lost(bench: Start) -> None:
    desk = bench()
    wanted = {"study_uids": (desk.study, "1.2.3")}
    await desk.pull(**wanted)
    desk.ledger.write(lambda connection: connection.execute(update(instances).values(bytes_state="missing")))

    events = await desk.pull(**wanted)

    assert [event.earlier for event in events if isinstance(event, StudyEnded)] == [False, False]
    assert len(desk.pacs.orders) == 2
    assert events[-1] == JobEnded(1, complete=1, empty=1)


async def test_an_old_verdict_is_renewed_by_moving_only_the_added_instances(bench: Start) -> None:
    desk = bench()
    wanted = {"study_uids": (desk.study, "1.2.3")}
    await desk.pull(**wanted)
    desk.ledger.write(lambda connection: connection.execute(update(retrievals).values(ended_at=time.time() - 2 * 86400)))
    desk.pacs.datasets.extend(study(series=(0, 0, 1)))

    events = await desk.pull(**wanted)

    assert events[-1] == JobEnded(1, complete=1, empty=1)
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "SERIES"]


async def test_a_source_that_failed_midway_is_asked_for_the_missing_ones_only(bench: Start) -> None:
    def gives_up(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected[:3]:
                send(dataset)
        order.final(0xA702)

    desk = bench(script=lambda order: gives_up(order) if order.number == 1 else honest(order))

    assert (await desk.verdict()).kind is COMPLETE
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "IMAGE"]
    assert sorted(desk.pacs.sent) == sorted(desk.pacs.uids())


async def test_a_source_that_answers_pending_for_ever_is_ended(bench: Start) -> None:
    over = threading.Event()

    def for_ever(order: Order) -> None:
        while not order.cancelled and not over.wait(0.05):
            order.pending(5, 0)
        order.final(0xFE00)

    desk = bench(script=lambda order: for_ever(order) if order.number == 1 else honest(order), source={"progress_timeout_s": 0.2})

    try:
        assert (await desk.verdict()).kind is COMPLETE
    finally:
        over.set()


async def test_a_source_that_repeats_one_instance_for_ever_is_not_awaited(bench: Start) -> None:
    begun, over = threading.Event(), threading.Event()

    def again_and_again(order: Order) -> None:
        todo = order.selected

        def send_one() -> None:
            with order.sending() as send:
                begun.set()
                while not over.is_set():
                    send(todo[0])

        order.pacs.later(send_one)
        # On a busy machine it would ask for its association when nobody listens any more.
        assert begun.wait(PATIENCE_S)
        order.final(0x0000, completed=1)

    desk = bench(script=lambda order: again_and_again(order) if order.number == 1 else honest(order))

    try:
        assert (await desk.verdict()).kind is COMPLETE
    finally:
        over.set()


async def test_a_listener_that_reads_no_events_holds_up_no_other_job(bench: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.retrieve.retriever.EVENT_BACKLOG", 2)
    desk = bench(datasets=[*study(seed=1), *study(seed=2)])
    first, second = dict.fromkeys(str(one.StudyInstanceUID) for one in desk.pacs.datasets)
    desk.pacs.script = lambda order: honest(order) if order.identifier.StudyInstanceUID == second else order.final(0xA702)

    async with desk.retriever.pull(PullRequest("archive", study_uids=(first,))):
        assert (await desk.verdict(study_uids=(second,))).kind is COMPLETE


async def test_a_caller_that_was_turned_away_is_named_where_nothing_came(bench: Start) -> None:
    def under_another_title(order: Order) -> None:
        with pytest.raises(Refused), order.sending(calling_ae="ARCHIVE_SCU"):
            pass
        order.final(0xA702, failed=5, failed_uids=order.pacs.uids())

    desk = bench(script=under_another_title)

    verdict = await desk.verdict()

    assert verdict.kind is FAILED
    assert "'ARCHIVE_SCU' from 127.0.0.1" in verdict.note
    assert "[sources]" in verdict.note


async def test_two_pulls_of_the_same_study_at_once_are_both_complete(bench: Start) -> None:
    desk = bench(datasets=study(series=(8, 8)))
    ended: list[JobEnded] = []

    async def one(**keys: tuple[str, ...]) -> None:
        last = (await desk.pull(**keys))[-1]
        assert isinstance(last, JobEnded)
        ended.append(last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: one(study_uids=(desk.study,)))
        nursery.start_soon(lambda: one(accession_numbers=("ACC1",)))
        nursery.start_soon(lambda: one(patient_ids=("TEST1",)))

    assert [one.complete for one in ended] == [1, 1, 1]


async def test_what_is_pushed_while_it_is_pulled_counts_whoever_sent_it(bench: Start) -> None:
    def pushes(order: Order) -> None:
        with order.sending(originator=False) as send:
            for dataset in order.selected[:2]:
                send(dataset)
        honest(order)

    desk = bench(script=pushes)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)


@dataclass(frozen=True)
class Part:
    """A part of a file, as a data set to send."""

    file: BinaryIO
    offset: int
    length: int

    def fileno(self) -> int:
        return self.file.fileno()


def swiftly(order: Order) -> None:
    """Send everything by our own requestor: stock pynetdicom takes a second for fifty instances."""
    host, port = order.pacs.destinations[order.destination]
    remote = RemoteAE(order.destination, host, port, tls=order.pacs.tls and order.pacs.tls[1])
    proposed = ProposedContext(CTImageStorage, (ExplicitVRLittleEndian,))
    with TemporaryFile() as file, associate(remote, order.pacs.ae_title, (proposed,)) as association:
        (context,) = association.accepted
        for dataset in order.selected:
            encoded = encode_identifier(dataset, ExplicitVRLittleEndian)
            part = Part(file, file.tell(), file.write(encoded))
            file.flush()
            originator = {"move_originator_ae": "GATEWAY", "move_originator_message_id": order.message_id}
            association.store(context, str(dataset.SOPInstanceUID), part, **originator)
    order.final(0x0000, completed=len(order.selected))


@pytest.mark.slow
async def test_a_study_of_more_than_a_thousand_over_mutual_tls_is_complete(bench: Start, certificate: MakeCertificate) -> None:
    theirs, ours = certificate("archive"), certificate("gateway")
    desk = bench(
        datasets=study(series=(1002, 3), rows=2),
        script=swiftly,
        tls=(acceptor_context(ListenTlsTable(port=0, **theirs)), requestor_context(TlsTable(**theirs))),
        listen_tls=acceptor_context(ListenTlsTable(port=0, **ours)),
        source={"tls": {name: str(path) for name, path in ours.items()}},
        secure=requestor_context,
    )

    events = await desk.pull(study_uids=(desk.study,))

    (ended,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
    assert (ended.kind, ended.expected, ended.received) == (COMPLETE, 1005, 1005)
    assert [order.level for order in desk.pacs.orders] == ["SERIES", "SERIES"]
    assert sum(isinstance(event, Progress) for event in events) < 4 * ended.seconds + 5


@pytest.mark.slow
async def test_a_thousand_missing_instances_are_repaired_in_pieces(bench: Start) -> None:
    def only_images(order: Order) -> None:
        if order.level == "IMAGE":
            swiftly(order)
        else:
            order.final(0x0000, completed=len(order.selected))

    desk = bench(datasets=study(series=(1005,), rows=2), script=only_images)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 1005)
    pieces = [order.identifier.SOPInstanceUID for order in desk.pacs.orders if order.level == "IMAGE"]
    assert [len(piece) for piece in pieces] == [100] * 10 + [5]


def test_targets_among_twice_as_many_instances_take_twice_the_steps() -> None:
    def decided(count: int) -> list[Target]:
        listed = {f"1.2.{number // 1000}.{number}": f"1.2.{number // 1000}" for number in range(count)}
        return first_targets("1.2", Expectation(Basis.UIDS, len(listed), listed), tuple(listed)[::2])

    assert steps(lambda: decided(20_000)) < 2.2 * steps(lambda: decided(10_000))
    targets = decided(100_000)
    assert sum(len(target.uids) for target in targets if target.level is Level.IMAGE) == 50_000
