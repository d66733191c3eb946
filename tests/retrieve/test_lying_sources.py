"""Each way in which a source lies ends in the right verdict with the right UIDs, and what could be repaired was."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from pydicom.uid import JPEG2000Lossless

from gateway.core.domain import Basis, VerdictKind
from gateway.ledger.peers import learned
from gateway.retrieve import JobEnded, Repairing, Waiting
from tests.retrieve.conftest import Bench, as_read, study
from tests.support import data
from tests.support.pacs import Order, Script, honest

Start = Callable[..., Bench]
COMPLETE, INCOMPLETE, EMPTY, FAILED = VerdictKind.COMPLETE, VerdictKind.INCOMPLETE, VerdictKind.EMPTY, VerdictKind.FAILED


def then_honest(script: Script, times: int = 1) -> Script:
    """A PACS that does as `script` says the first `times`, and what it should afterwards."""
    return lambda order: script(order) if order.number <= times else honest(order)


async def test_an_honest_source_is_asked_once_and_complete(bench: Start) -> None:
    desk = bench()

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.expected, verdict.received, verdict.missing, verdict.note) == (COMPLETE, 5, 5, (), "")
    assert [order.level for order in desk.pacs.orders] == ["STUDY"]
    assert verdict.basis is Basis.UIDS
    assert verdict.bytes > 5 * 128


async def test_success_that_came_before_the_instances_is_waited_for(bench: Start) -> None:
    def early(order: Order) -> None:
        order.final(0x0000, completed=len(order.selected))
        todo = order.selected

        def send_all() -> None:
            with order.sending() as send:
                for dataset in todo:
                    send(dataset)

        order.pacs.later(send_all)

    desk = bench(script=early)

    verdict = await desk.verdict()

    assert verdict.kind is COMPLETE
    assert len(desk.pacs.orders) == 1
    with desk.ledger.read() as connection:
        assert learned.get(connection, "source:archive", learned.ASYNCHRONOUS, now=0) == "yes"


async def test_success_with_nothing_sent_is_asked_again(bench: Start) -> None:
    desk = bench(script=then_honest(lambda order: order.final(0x0000, completed=5)))

    assert (await desk.verdict()).kind is COMPLETE
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "IMAGE", "IMAGE"]


async def test_success_with_nothing_sent_ever_is_failed_with_every_uid(bench: Start) -> None:
    desk = bench(script=lambda order: order.final(0x0000, completed=5))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (FAILED, 0)
    assert sorted(verdict.missing) == sorted(desk.pacs.uids())
    assert "nothing came" in verdict.note


def skipping(uid_index: int) -> Script:
    def skip(order: Order) -> None:
        unlucky = order.pacs.uids()[uid_index]
        with order.sending() as send:
            for dataset in order.selected:
                if dataset.SOPInstanceUID != unlucky:
                    send(dataset)
        order.final(0x0000, completed=len(order.selected))

    return skip


async def test_an_instance_that_was_skipped_is_asked_for_alone(bench: Start) -> None:
    desk = bench(script=then_honest(skipping(3)))

    assert (await desk.verdict()).kind is COMPLETE
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "IMAGE"]
    assert desk.pacs.orders[1].identifier.SOPInstanceUID == desk.pacs.uids()[3]


async def test_an_instance_that_is_always_skipped_is_named(bench: Start) -> None:
    desk = bench(script=skipping(3))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.missing, verdict.received) == (INCOMPLETE, (desk.pacs.uids()[3],), 4)
    assert "answered 0000" in verdict.note
    assert {order.level for order in desk.pacs.orders} == {"STUDY", "IMAGE", "SERIES"}
    assert "uncompressed-first" in desk.orders


async def test_an_instance_that_we_refused_once_is_repaired(bench: Start) -> None:
    desk = bench(refuse=lambda nth, _uid: 0xA700 if nth == 2 else None)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "IMAGE"]


async def test_a_source_that_stops_at_the_first_refusal_is_repaired(bench: Start) -> None:
    def stops(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected:
                if send(dataset) != 0:
                    order.final(0xC000)
                    return
        order.final(0x0000, completed=len(order.selected))

    desk = bench(script=stops, refuse=lambda nth, _uid: 0xA700 if nth == 3 else None)

    assert (await desk.verdict()).kind is COMPLETE


async def test_one_instance_that_stops_the_source_each_time_costs_only_itself(bench: Start) -> None:
    def poisoned(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected:
                if dataset.SOPInstanceUID == order.pacs.uids()[1]:
                    order.final(0xC000)
                    return
                send(dataset)
        order.final(0x0000, completed=len(order.selected))

    desk = bench(script=poisoned)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.missing) == (INCOMPLETE, (desk.pacs.uids()[1],))


async def test_a_warning_status_of_ours_changes_nothing(bench: Start) -> None:
    desk = bench(refuse=lambda nth, _uid: 0xB000 if nth == 2 else None)

    assert (await desk.verdict()).kind is COMPLETE


async def test_duplicates_do_not_hide_that_an_instance_is_missing(bench: Start) -> None:
    def twice(order: Order) -> None:
        with order.sending() as send:
            for dataset in [*order.selected[:-1], order.selected[0]]:
                send(dataset)
        order.final(0x0000, completed=len(order.selected))

    desk = bench(script=then_honest(twice))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)
    assert desk.pacs.orders[1].identifier.SOPInstanceUID == desk.pacs.uids()[-1]


@pytest.mark.parametrize("how", ["abort", "close"])
async def test_a_source_that_dies_half_way_is_asked_for_the_rest(bench: Start, how: str) -> None:
    def dies(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected[:3]:
                send(dataset)
                order.pending(len(order.selected), 1)
        getattr(order, how)()

    desk = bench(script=then_honest(dies))

    assert (await desk.verdict()).kind is COMPLETE
    asked = [str(uid) for order in desk.pacs.orders[1:] for uid in order.identifier.SOPInstanceUID]
    assert sorted(asked) == sorted(desk.pacs.uids()[3:])


async def test_a_source_that_always_dies_is_given_up_with_the_missing_uids(bench: Start) -> None:
    desk = bench(script=lambda order: order.abort())

    verdict = await desk.verdict()

    assert (verdict.kind, len(verdict.missing)) == (FAILED, 5)
    assert len(desk.pacs.orders) == 3


async def test_a_study_that_the_source_does_not_know_is_empty(bench: Start) -> None:
    desk = bench()

    verdict = await desk.verdict(study_uids=("1.2.3.4",))

    assert (verdict.kind, verdict.study_instance_uid, verdict.expected) == (EMPTY, "1.2.3.4", 0)
    assert desk.pacs.orders == []


async def test_an_unknown_move_destination_says_what_to_register(bench: Start) -> None:
    desk = bench(known=False)

    verdict = await desk.verdict()

    assert verdict.kind is FAILED
    assert "register AE title GATEWAY, host 127.0.0.1, port 11112" in verdict.note
    assert len(desk.pacs.orders) == 1


async def test_a_source_without_image_level_is_judged_by_counts_with_a_note(bench: Start) -> None:
    desk = bench(image_level=False)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.basis, verdict.expected, verdict.received) == (COMPLETE, Basis.COUNTS, 5, 5)
    assert "judged by its counts" in verdict.note


async def test_counts_find_that_an_instance_is_missing(bench: Start) -> None:
    desk = bench(image_level=False, script=skipping(2))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.basis, verdict.expected, verdict.received) == (INCOMPLETE, Basis.COUNTS, 5, 4)


async def test_counts_alone_suffice_without_originators(bench: Start) -> None:
    desk = bench(image_level=False, series_level=False, script=anonymous)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 5)


async def test_without_uids_and_counts_nothing_is_called_complete(bench: Start) -> None:
    desk = bench(image_level=False, counts=lambda _count: None)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.expected, verdict.received) == (INCOMPLETE, None, 5)


async def test_a_study_that_grows_while_moved_is_completed_with_its_growth(bench: Start) -> None:
    def grows(order: Order) -> None:
        honest(order)
        if order.number == 1:
            order.pacs.datasets.extend(study(series=(0, 0, 2)))

    desk = bench(script=grows)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.expected, verdict.received) == (COMPLETE, 7, 7)
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "SERIES"]


def anonymous(order: Order) -> None:
    with order.sending(originator=False) as send:
        for dataset in order.selected:
            send(dataset)
    order.final(0x0000, completed=len(order.selected))


async def test_instances_without_an_originator_are_known_by_their_uids(bench: Start) -> None:
    desk = bench(script=anonymous)

    assert (await desk.verdict()).kind is COMPLETE
    assert len(desk.pacs.orders) == 1


@pytest.mark.parametrize("status", [0xA701, 0xA702])
async def test_a_busy_source_is_asked_again_after_a_while(bench: Start, status: int) -> None:
    desk = bench(script=then_honest(lambda order: order.final(status), times=2))
    waits: list[str] = []

    events = await desk.pull(
        study_uids=(desk.study,), see=lambda event: waits.append(event.reason) if isinstance(event, Waiting) else None
    )

    assert events[-1] == JobEnded(1, complete=1)
    assert waits == ["busy", "busy"]
    assert [order.level for order in desk.pacs.orders] == ["STUDY"] * 3
    assert len({order.message_id for order in desk.pacs.orders}) == 3


async def test_a_source_that_can_send_only_what_was_accepted_needs_both_orders(
    bench: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mixed = study(series=(2,), seed=5)
    for dataset in study(series=(0, 2), seed=5, rows=64):
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        mixed.append(as_read(dataset))

    def one_context(order: Order) -> None:
        failed = []
        with order.sending(one_context=True) as send:
            for dataset in order.selected:
                if send(dataset) is None:
                    failed.append(str(dataset.SOPInstanceUID))
        done = len(order.selected) - len(failed)
        order.final(0xB000 if failed and done else 0xA702 if failed else 0, done, len(failed), failed)

    desk = bench(datasets=mixed, script=_proposing_all(one_context))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (COMPLETE, 4)
    assert desk.orders[-1] == "j2k-first"
    with desk.ledger.read() as connection:
        assert learned.get(connection, "source:archive", "both_orders", now=0) == "yes"


async def test_the_order_that_works_for_a_source_is_learned(bench: Start) -> None:
    def uncompressed_only(order: Order) -> None:
        with order.sending(one_context=True) as send:
            failed = [str(one.SOPInstanceUID) for one in order.selected if send(one) is None]
        order.final(0xA702 if failed else 0, len(order.selected) - len(failed), len(failed), failed)

    datasets = study(series=(2,))
    decoy = data.ct_dataset(seed=9, number=1)
    decoy.compress(JPEG2000Lossless, generate_instance_uid=False)
    decoy = as_read(decoy)
    desk = bench(datasets=[*datasets, decoy], script=_proposing_all(uncompressed_only))

    first = await desk.verdict(study_uids=(desk.study,))

    assert first.kind is COMPLETE
    with desk.ledger.read() as connection:
        assert learned.get(connection, "source:archive", learned.ACCEPTANCE_ORDER, now=0) == "uncompressed-first"
    assert desk.orders[-1] == "uncompressed-first"


def _proposing_all(script: Script) -> Script:
    """Propose the transfer syntaxes of everything the PACS holds, J2K first, whatever is asked for."""

    def run(order: Order) -> None:
        order.propose = list(reversed(order.pacs.datasets))
        script(order)

    return run


async def test_a_source_that_hangs_is_cancelled_and_asked_for_the_rest(bench: Start) -> None:
    cancelled = threading.Event()

    def hangs(order: Order) -> None:
        with order.sending() as send:
            for dataset in order.selected[:2]:
                send(dataset)
        while not order.cancelled:
            cancelled.wait(0.02)
        cancelled.set()
        order.final(0xFE00, completed=2)

    desk = bench(script=then_honest(hangs), source={"progress_timeout_s": 2.0})

    assert (await desk.verdict()).kind is COMPLETE
    assert cancelled.is_set()


async def test_a_slow_source_that_goes_on_is_not_cut_off(bench: Start) -> None:
    def slow(order: Order) -> None:
        pause = threading.Event()
        with order.sending() as send:
            for dataset in order.selected:
                pause.wait(0.7)
                send(dataset)
        order.final(0x0000, completed=len(order.selected))

    desk = bench(datasets=study(series=(5,)), script=slow, source={"progress_timeout_s": 3.0})

    assert (await desk.verdict()).kind is COMPLETE
    assert len(desk.pacs.orders) == 1
    assert len(desk.pacs.orders) == 1


async def test_a_study_that_vanishes_from_the_list_stays_expected(bench: Start) -> None:
    desk = bench(script=skipping(0), lists=lambda dataset, finds: finds < 5 or dataset.InstanceNumber != 1)

    verdict = await desk.verdict()

    assert verdict.kind is INCOMPLETE
    assert verdict.missing == (desk.pacs.uids()[0],)
    assert "no longer lists" in verdict.note


async def test_repairs_are_told(bench: Start) -> None:
    desk = bench(script=then_honest(skipping(3)))

    events = await desk.pull(study_uids=(desk.study,))

    assert [(one.step, one.missing) for one in events if isinstance(one, Repairing)] == [("image", 1)]
