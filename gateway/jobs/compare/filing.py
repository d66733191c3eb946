"""Repairs from a folder: its files are taken in for the other side, with a verdict a study. Runs in trio.

It does for a folder what `Retriever` does for a source: a job, and for each study, or part of one, a retrieval to which the files
are counted as they are taken in. The verdict rests on the same sets: what the folder has of it, and what of that is on its way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import trio
from sqlalchemy import Connection

from gateway.archives.places import FolderPlace, Place
from gateway.core.domain import Basis
from gateway.core.log import get_logger
from gateway.jobs.compare.hours import Hours
from gateway.jobs.compare.repair import Fetch
from gateway.ledger import Ledger
from gateway.ledger.jobs import retrievals
from gateway.retrieve import JobSpec, Verdict, Wanted
from gateway.retrieve.job import STOP_S, opening
from gateway.retrieve.verdict import Expectation, conflict_notes, judge, tally

T = TypeVar("T")
log = get_logger()

SOURCE = "(folder)"
"""The ledger's name for the origin of a repair from a folder: no source is called so, and a path may say too much."""

AT_A_TIME = 64
"""Files that are taken in before it may be stopped."""

Take = Callable[[Mapping[str, Path], str, int], Iterator[str]]
"""Takes files in, by SOP Instance UID, for a destination and a retrieval; yields for each why it was not, or nothing. Blocking."""


@dataclass(frozen=True)
class Filing:
    """Brings instances from folders to destinations. `clock` gives UTC seconds since the epoch."""

    ledger: Ledger
    take: Take
    clock: Callable[[], float] = time.time

    async def bring(
        self, folder: FolderPlace, other: Place, spec: JobSpec, fetches: Sequence[Fetch], hours: Hours
    ) -> tuple[int, list[Verdict]]:
        """Take in, within `hours`, what `fetches` name of `folder` for the one destination of `spec`, the place `other`.

        Returns the id of the job and a verdict for each study or part of one. When cancelled, it stops between files; what was
        taken in stays queued.

        Raises:
            AssociationError, WebServiceError: `other` cannot be asked what it holds already.
            LedgerError: the ledger cannot be used.
        """
        job = await self.write(opening(spec))
        (destination,) = spec.destinations
        state: retrievals.JobState = "stopped"
        try:
            verdicts = []
            for fetch in fetches:
                study = partial(retrievals.open_retrieval, source=SOURCE, study_instance_uid=fetch.wanted.study_instance_uid)
                opened = await self.write(partial(study, job_id=job.id, fresh=True))
                verdicts.append(await hours.within(_Study(self, folder, other, destination, opened.id, fetch).bring))
            state = "done"
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
                await self.write(partial(retrievals.set_job_state, job_id=job.id, state=state))
        return job.id, verdicts

    async def write(self, change: Callable[..., T]) -> T:
        """Change the ledger, durably; `change` is given the time as ``now``."""
        return await trio.to_thread.run_sync(self.ledger.write, partial(change, now=self.clock()))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Ask the ledger."""
        return await trio.to_thread.run_sync(self.ledger.ask, query)


@dataclass(frozen=True)
class _Study:
    """One study, or a part of it, on its way from a folder; `bring` may be called again where it was broken off."""

    filing: Filing
    folder: FolderPlace
    other: Place
    destination: str
    retrieval_id: int
    fetch: Fetch

    async def bring(self) -> Verdict:
        began, wanted = trio.current_time(), self.fetch.wanted
        files = chosen(wanted, await trio.to_thread.run_sync(self.folder.files, wanted.study_instance_uid))
        skipped = await self._held(files) if self.fetch.skip_existing else set[str]()
        trouble = await self._take(files, skipped | (await self._received()).keys())
        expectation, received = expected(wanted, files), await self._received()
        result = tally(expectation, received, skipped)
        kind, note = judge(expectation, result, skipped=len(skipped), trouble=trouble)
        conflicts = await self.filing.read(partial(retrievals.conflicts, retrieval_id=self.retrieval_id))
        verdict = Verdict(
            kind,
            wanted.study_instance_uid,
            expectation.basis,
            expectation.count,
            result.received,
            len(skipped),
            result.missing,
            note="; ".join(filter(None, (note, *conflict_notes(conflicts)))),
            seconds=round(trio.current_time() - began, 3),
            bytes=sum(received.values()),
            retrieval_id=self.retrieval_id,
        )
        await self.filing.write(partial(_settle, expectation=expectation, skipped=skipped, verdict=verdict))
        counts = {"expected": verdict.expected, "received": verdict.received, "missing": len(verdict.missing)}
        log.info("study_ended", study=verdict.study_instance_uid, source=SOURCE, verdict=str(kind), **counts)
        return verdict

    async def _held(self, series: Collection[str]) -> set[str]:
        """Return what the other side has of these series."""
        study = self.fetch.wanted.study_instance_uid

        def ask() -> set[str]:
            return {uid for one in series for uid in self.other.instances(study, one)}

        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)

    async def _received(self) -> Mapping[str, int]:
        query = partial(retrievals.received_for, retrieval_id=self.retrieval_id, destinations=(self.destination,))
        return await self.filing.read(query)

    async def _take(self, files: Mapping[str, Mapping[str, Path]], but: Collection[str]) -> list[str]:
        """Take files in, but for some, and return in words which were not and why."""
        left = {uid: path for of_series in files.values() for uid, path in of_series.items() if uid not in but}
        reasons: Counter[str] = Counter()
        with closing(cast(Any, self.filing.take(left, self.destination, self.retrieval_id))) as events:
            while some := await trio.to_thread.run_sync(list, islice(events, AT_A_TIME)):
                reasons.update(filter(None, some))
        return [f"{count} of its files cannot be taken in: {reason}" for reason, count in reasons.items()]


def chosen(wanted: Wanted, files: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, Path]]:
    """Return those `files` of a study, by Series and SOP Instance UID, that are `wanted` of it; pure."""
    return {
        series: some
        for series, of_series in files.items()
        if wanted.series is None or series in wanted.series
        if (some := {uid: path for uid, path in of_series.items() if wanted.instances is None or uid in wanted.instances})
    }


def expected(wanted: Wanted, files: Mapping[str, Mapping[str, Path]]) -> Expectation:
    """Return what is expected to come of `files`; pure."""
    listed = {uid: series for series, of_series in files.items() for uid in of_series}
    return Expectation(Basis.UIDS, len(listed), listed, tuple(files), whole_study=not wanted.partial)


def _settle(connection: Connection, expectation: Expectation, skipped: Collection[str], verdict: Verdict, *, now: float) -> None:
    """Record what was expected and how it ended at once: nothing that comes meanwhile is to be counted to a folder."""
    retrieval_id = verdict.retrieval_id or 0
    retrievals.expect(
        connection,
        retrieval_id,
        basis=expectation.basis,
        expected_count=expectation.count,
        listed=expectation.listed,
        skipped=skipped,
    )
    retrievals.settle(connection, retrieval_id, verdict.kind, verdict.note, now=now)
