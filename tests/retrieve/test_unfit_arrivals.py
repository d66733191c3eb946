"""Instances sent otherwise than listed are named, asked for again in other ways, and never prove a study complete."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
)

from gateway.core.domain import VerdictKind
from gateway.ledger.peers import learned
from gateway.retrieve import Repairing
from tests.retrieve.conftest import Bench, as_read, study
from tests.support import data
from tests.support.pacs import Order, Script, honest

Start = Callable[..., Bench]
Change = Callable[[Dataset], None]
COMPLETE, INCOMPLETE, FAILED = VerdictKind.COMPLETE, VerdictKind.INCOMPLETE, VerdictKind.FAILED


def changing(change: Change, which: slice = slice(None), times: int = 1000) -> Script:
    """A PACS that sends those of its instances that are at `which` otherwise than it lists them, in its first `times` C-MOVEs."""

    def script(order: Order) -> None:
        if order.number > times:
            honest(order)
            return
        unlucky = set(order.pacs.uids()[which])
        todo = [deepcopy(dataset) for dataset in order.selected]
        for dataset in todo:
            if str(dataset.SOPInstanceUID) in unlucky:
                change(dataset)
        order.propose = todo
        with order.sending() as send:
            for dataset in todo:
                send(dataset)
        order.final(0x0000, len(todo))

    return script


def setting(**values: str) -> Change:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def in_syntax(syntax: str) -> Change:
    """Declares another transfer syntax; what is in it does not matter here, but that it is not the same."""

    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.ImageComments = "transcoded"

    return change


def listing(syntax: str, datasets: list[Dataset] | None = None) -> list[Dataset]:
    """Data sets of which the PACS says that it has them in `syntax`."""
    found = study() if datasets is None else datasets
    for dataset in found:
        dataset.AvailableTransferSyntaxUID = syntax
    return [as_read(dataset) for dataset in found]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (setting(StudyInstanceUID="1.2.3.4"), "inside another study"),
        (setting(StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.4.5", PatientID="SOMEBODY"), "inside another study"),
        (setting(SeriesInstanceUID="1.2.3.4.5"), "inside another series"),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
async def test_instances_inside_another_study_or_series_are_not_what_was_listed(
    bench: Start, change: Change, reason: str, count: int
) -> None:
    desk = bench(script=changing(change, slice(0, count)))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == ((INCOMPLETE, 4) if count == 1 else (FAILED, 0))
    assert set(verdict.unfit) == set(verdict.missing) == set(desk.pacs.uids()[:count])
    assert all(reason in why for why in verdict.unfit.values())
    assert reason in verdict.note


async def test_what_came_inside_another_study_once_is_asked_for_again(bench: Start) -> None:
    desk = bench(script=changing(setting(StudyInstanceUID="1.2.3.4"), slice(2, 4), times=1))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received, verdict.unfit) == (COMPLETE, 5, {})
    assert [order.level for order in desk.pacs.orders] == ["STUDY", "IMAGE", "IMAGE"]


async def test_a_job_with_destinations_of_its_own_looks_at_studies_too(bench: Start) -> None:
    desk = bench(script=changing(setting(StudyInstanceUID="1.2.3.4")))

    verdict = await desk.verdict(study_uids=(desk.study,), destinations=("copy",))

    assert (verdict.kind, verdict.received, len(verdict.unfit)) == (FAILED, 0, 5)


async def test_an_instance_of_another_study_beside_those_listed_is_named(bench: Start) -> None:
    def more(order: Order) -> None:
        stray = deepcopy(order.pacs.datasets[0])
        stray.StudyInstanceUID, stray.SOPInstanceUID, stray.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.3.9", "1.2.3.9"
        with order.sending() as send:
            for dataset in (*order.selected, stray):
                send(dataset)
        order.final(0x0000, len(order.selected) + 1)

    verdict = await bench(script=more).verdict()

    assert (verdict.kind, verdict.received, verdict.unfit) == (INCOMPLETE, 5, {"1.2.3.9": "inside another study"})
    assert "1 instance came that the source does not list" in verdict.note


async def test_another_sop_class_than_the_source_lists_is_named(bench: Start) -> None:
    desk = bench(datasets=listing(ExplicitVRLittleEndian), script=changing(setting(SOPClassUID=SecondaryCaptureImageStorage)))

    verdict = await desk.verdict()

    assert verdict.kind is FAILED
    assert set(verdict.unfit.values()) == {"as another SOP class than the source lists"}


async def test_another_transfer_syntax_than_the_source_lists_is_named(bench: Start) -> None:
    desk = bench(datasets=listing(JPEG2000Lossless))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received, len(verdict.missing)) == (FAILED, 0, 5)
    assert "5 instances came in another transfer syntax than the source has" in verdict.note
    assert {"uncompressed-first", "as-proposed"} <= set(desk.orders)


async def test_what_a_source_transcodes_once_is_asked_for_in_another_order(bench: Start) -> None:
    script = changing(in_syntax(JPEG2000Lossless), slice(0, 2), times=1)
    desk = bench(datasets=listing(ExplicitVRLittleEndian), script=script)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received, verdict.unfit) == (COMPLETE, 5, {})
    assert desk.pacs.orders[1].level == "IMAGE"
    assert "uncompressed-first" in desk.orders


async def test_what_a_source_transcodes_by_c_move_is_asked_for_by_c_get(bench: Start) -> None:
    told = []
    script = changing(in_syntax(JPEG2000Lossless))
    desk = bench(datasets=listing(ExplicitVRLittleEndian), script=script, gets=lambda _nth, _uid: None)

    events = await desk.pull(study_uids=(desk.study,), see=told.append)

    verdict = next(event.verdict for event in events if hasattr(event, "verdict"))
    assert (verdict.kind, verdict.received, verdict.unfit) == (COMPLETE, 5, {})
    assert sorted(set(desk.pacs.got)) == sorted(desk.pacs.uids())
    assert "get" in {event.step for event in told if isinstance(event, Repairing)}


async def test_a_source_that_tells_no_transfer_syntax_is_not_asked_again(bench: Start) -> None:
    desk = bench()
    assert (await desk.verdict()).kind is COMPLETE
    asked = len(desk.pacs.finds)
    assert (await desk.verdict(accession_numbers=(str(desk.pacs.datasets[0].AccessionNumber),))).kind is COMPLETE

    images = [query for query in desk.pacs.finds if query.QueryRetrieveLevel == "IMAGE"]
    later = [query for query in desk.pacs.finds[asked:] if query.QueryRetrieveLevel == "IMAGE"]
    assert "AvailableTransferSyntaxUID" in images[0]
    assert later
    assert not any("AvailableTransferSyntaxUID" in query for query in later)


def fewer(limit: int) -> Callable[[Dataset, int], bool]:
    """List only the first `limit` instances."""
    return lambda dataset, _finds: int(dataset.SOPInstanceUID.split(".")[-1]) <= limit and dataset.SeriesInstanceUID.endswith(".1")


@pytest.mark.parametrize("counted", [4, 5, 500])
async def test_a_source_that_counts_more_than_it_lists_is_never_complete(bench: Start, counted: int) -> None:
    desk = bench(datasets=study(series=(3,)), counts=lambda _count: counted)

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (INCOMPLETE, 3)
    assert f"the source lists fewer than it counts: counted {counted}, listed 3" in verdict.note


async def test_unlisted_arrivals_make_the_study_incomplete(bench: Start) -> None:
    desk = bench(lists=fewer(2))

    verdict = await desk.verdict()

    assert (verdict.kind, verdict.received) == (INCOMPLETE, 2)
    assert "3 instances came that the source does not list" in verdict.note


def dose() -> Dataset:
    dataset = data.ct_dataset(seed=1, number=77, rows=8)
    del dataset.PixelData
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTDoseStorage
    dataset.file_meta.TransferSyntaxUID = RLELossless
    return as_read(dataset)


def its_own_first(order: Order) -> None:
    """Proposes for an RT Dose, in one context, the transfer syntax that it can send first and then one that we like better."""
    unsent = 0
    todo = order.selected
    order.propose = [*todo, *(_as(one, JPEG2000Lossless) for one in todo if one.SOPClassUID == RTDoseStorage)]
    with order.sending(one_context=True) as send:
        for dataset in todo:
            unsent += send(dataset) is None
    order.final(0xB000 if unsent else 0x0000, len(todo) - unsent, unsent)


def _as(dataset: Dataset, syntax: str) -> Dataset:
    other = deepcopy(dataset)
    other.file_meta.TransferSyntaxUID = syntax
    return other


async def test_a_sop_class_sent_only_as_proposed_comes_and_is_learned(bench: Start) -> None:
    explicit = [as_read(one) for one in study(series=(2,))]
    desk = bench(datasets=[*explicit, dose()], script=its_own_first)

    verdict = await desk.verdict()
    assert (verdict.kind, verdict.received) == (COMPLETE, 3)
    with desk.ledger.read() as connection:
        taught = learned.get(connection, "source:archive", learned.CLASS_ORDERS, now=0)
    assert taught == f'{{"{RTDoseStorage}": "as-proposed"}}'

    before = len(desk.pacs.orders)
    again = await desk.verdict(accession_numbers=(str(explicit[0].AccessionNumber),))
    assert (again.kind, len(desk.pacs.orders) - before) == (COMPLETE, 1)
