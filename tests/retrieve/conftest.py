"""A retriever between a source that does as scripted and a ledger that is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.config.settings import Settings
from gateway.core.domain import VerdictKind
from gateway.ledger import Ledger
from gateway.ledger.jobs import retrievals
from gateway.retrieve import Event, JobEnded, PullRequest, Retriever, StudyEnded, Verdict
from gateway.retrieve.recovery import Backoff
from tests.support import data
from tests.support.pacs import Pacs
from tests.support.ports import HOST
from tests.support.reception import Reception, reception
from tests.support.waiting import PATIENCE_S

DEADLINE_S = 60.0


@dataclass
class Bench:
    """The retriever under test, the PACS it asks and the acceptor that hears what comes."""

    pacs: Pacs
    reception: Reception
    retriever: Retriever
    ledger: Ledger
    settings: Settings
    orders: list[str]

    async def pull(self, *, see: Callable[[Event], object] = lambda _event: None, **keys: Any) -> list[Event]:
        """Run a job to its end and return its events."""
        events = []
        with trio.fail_after(DEADLINE_S):
            async with self.retriever.pull(PullRequest("archive", **keys)) as stream:
                async for event in stream:
                    events.append(event)
                    see(event)
        return events

    async def verdict(self, **keys: Any) -> Verdict:
        """Pull the one study that the PACS holds, or another by `keys`, and return its verdict."""
        events = await self.pull(**(keys or {"study_uids": (self.study,)}))
        assert isinstance(events[-1], JobEnded), events[-1]
        (ended,) = [event.verdict for event in events if isinstance(event, StudyEnded)]
        self.agrees(ended)
        return ended

    def agrees(self, verdict: Verdict) -> None:
        """The ledger says what the verdict said, and a complete one is proved by what arrived."""
        if verdict.retrieval_id is None:
            return
        with self.ledger.read() as connection:
            received = set(retrievals.received(connection, verdict.retrieval_id))
            listed, skipped = retrievals.expected(connection, verdict.retrieval_id)
        assert set(verdict.missing) == listed.keys() - (received - verdict.unfit.keys()) - skipped
        if verdict.kind is VerdictKind.COMPLETE:
            assert listed.keys() - skipped <= set(self.reception.arrived)

    @property
    def study(self) -> str:
        """The Study Instance UID of the first data set."""
        return str(self.pacs.datasets[0].StudyInstanceUID)


def settings(port: int, **source: Any) -> Settings:
    table = {
        "ae_title": "ARCHIVE",
        "host": HOST,
        "port": port,
        "settle_s": 0.05,
        "progress_timeout_s": PATIENCE_S,
        "response_timeout_s": PATIENCE_S,
        **source,
    }
    sources = {"archive": table, "unasked": {"ae_title": "OTHER", "host": HOST}}
    destinations = {name: {"kind": "folder", "path": name} for name in ("copy", "second")}
    return Settings.model_validate({"sources": sources, "destinations": destinations})


def retriever(ledger: Ledger, reception: Reception, made: Settings, orders: list[str], **more: Any) -> Retriever:
    def set_order(source: str, order: str, *by_class: Mapping[str, str]) -> None:
        orders.append(order)
        reception.admission.set_order(source, order, *by_class)

    def no_tls(_table: object) -> Any:
        raise AssertionError("no source here has TLS")

    backoff = more.pop("backoff", Backoff(first_s=0.05, max_s=0.2, tries=5))
    secure, barrier = more.pop("secure", no_tls), reception.recorder.flush
    return Retriever(
        made, ledger, tls=secure, set_order=set_order, barrier=barrier, storage=lambda: reception, backoff=backoff, **more
    )


def study(*, series: Sequence[int] = (3, 2), seed: int = 1, rows: int = 8) -> list[Dataset]:
    """Small CT data sets: so many instances in each series."""
    return [
        as_read(data.ct_dataset(seed=seed, number=number, rows=rows, series=which))
        for which, count in enumerate(series, 1)
        for number in range(1, count + 1)
    ]


def as_read(dataset: Dataset) -> Dataset:
    """The data set as a file gives it back: pynetdicom sends one by the encoding that it was read in."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """A function that starts a bench: `bench(script=…, datasets=…, refuse=…, source={…}, …)`."""
    with ExitStack() as stack:
        yield partial(_bench, stack, tmp_path)


def _bench(stack: ExitStack, folder: Path, *, datasets: list[Dataset] | None = None, known: bool = True, **more: Any) -> Bench:
    """`known` says whether the PACS knows us as a move destination; further options are of `Pacs`, `Reception`, `Retriever`."""
    pacs = Pacs({}, study() if datasets is None else datasets)
    for name in [name for name in more if name in Pacs.__dataclass_fields__]:
        setattr(pacs, name, more.pop(name))
    stack.enter_context(pacs.running())
    made = settings(more.pop("source_port", pacs.port), **more.pop("source", {}))
    ledger = stack.enter_context(Ledger(folder / "ledger.sqlite"))
    ours = reception(folder, made, ledger, refuse=more.pop("refuse", lambda _nth, _uid: None), tls=more.pop("listen_tls", None))
    stack.enter_context(ours.running())
    if known:
        pacs.destinations["GATEWAY"] = (HOST, ours.port)
    orders = list[str]()
    ours.retriever = retriever(ledger, ours, made, orders, **more)
    return Bench(pacs, ours, ours.retriever, ledger, made, orders)
