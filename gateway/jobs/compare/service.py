"""The comparisons of a gateway: made from requests, with their places, repaired through the retriever. Runs in trio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from gateway.archives.places import FolderPlace, Place
from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.core.errors import UsageError, require_known
from gateway.core.files import make_private_folder
from gateway.jobs.compare.differences import Difference, Kind
from gateway.jobs.compare.filing import Filing
from gateway.jobs.compare.hours import Hours, nobody
from gateway.jobs.compare.repair import directions, fetches
from gateway.jobs.compare.request import CompareRequest, Repair
from gateway.jobs.compare.runner import Comparison, Outcome, Tell, fetch_all
from gateway.jobs.working_hours import Window
from gateway.retrieve import JobSpec, Retriever, Verdict


@dataclass(frozen=True)
class Repaired:
    """The repair of one side: the job, the place that was given instances, and the verdicts."""

    job_id: int
    destination: str
    verdicts: Sequence[Verdict]


Settle = Callable[[Repaired], Awaitable[object]]
"""Waits until the deliveries of a repair are through."""

Waits = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Comparisons:
    """Makes comparisons. `place` opens a place by name or by the path of a folder; `folder` is theirs alone; `pool` decodes.

    Instances for repairs come by `retriever` from sources, by `filing` from folders.
    """

    settings: Settings
    retriever: Retriever
    filing: Filing
    place: Callable[[str], Place]
    folder: Path
    pool: Pool
    clock: Callable[[], float] = time.time

    @asynccontextmanager
    async def opened(self, request: CompareRequest, tell: Tell, waits: Waits = nobody) -> AsyncIterator[Comparison]:
        """Open a comparison for the ``async with``.

        Raises:
            UsageError: there is no such place or schedule, it gives no files for --content, or the repair has no way.
        """
        require_known("schedule", [request.when] if request.when else [], self.settings.schedule)
        hours = Hours(Window(self.settings.hours(request.when)), waits)
        for kind in directions(request.repair) if request.repair else ():
            self._way(request, kind)
        make_private_folder(self.folder)
        with closing(self.place(request.a)) as a, closing(self.place(request.b)) as b:
            for place in (a, b) if request.content else ():
                if not place.gives_files:
                    raise UsageError(f"--content: {place.name} gives no files: it needs `rest` or `dicomweb` in its table")
            yield Comparison(request, a, b, self.folder, self.pool, tell, hours)

    async def carry_out(
        self, request: CompareRequest, tell: Tell, settle: Settle, waits: Waits = nobody
    ) -> tuple[Outcome, list[Repaired]]:
        """Compare, repair where that is asked, and compare again; return the last outcome and what was repaired.

        `waits` is called whenever its hours end before that.

        Raises:
            UsageError: there is no such place, or what is asked has no way.
            AssociationError, WebServiceError: a place cannot be asked which studies it has.
            LedgerError: the ledger cannot be used.
        """
        async with self.opened(request, tell, waits) as comparison:
            outcome = await comparison.look()
            if request.repair is None or outcome.same:
                return outcome, []
            repaired = await self.repair(comparison, outcome.differences)
            for done in repaired:
                await settle(done)
            return await comparison.look(), repaired

    async def repair(self, comparison: Comparison, found: Sequence[Difference]) -> list[Repaired]:
        """Bring to each side what is asked; what differs in content is overwritten in one direction only.

        Raises:
            UsageError, LedgerError: as `Retriever.job`.
            AssociationError, WebServiceError: as `Filing.bring`.
        """
        done, request = [], comparison.request
        for kind in directions(request.repair) if request.repair else ():
            wanted = fetches(found, kind, overwrite=request.repair is not Repair.BOTH)
            if not wanted:
                continue
            source, destination = self._way(request, kind)
            fingerprint = request.fingerprint(f"{destination} {self.clock()}")
            spec = JobSpec("compare", fingerprint, request.criteria(), (destination,))
            giving, taking = (comparison.a, comparison.b) if kind is Kind.ONLY_A else (comparison.b, comparison.a)
            if source is not None:
                at_a_time = self.settings.sources[source].moves + 1
                job_id, verdicts = await fetch_all(self.retriever, source, spec, wanted, comparison.hours, at_a_time=at_a_time)
            else:
                assert isinstance(giving, FolderPlace)
                job_id, verdicts = await self.filing.bring(giving, taking, spec, wanted, comparison.hours)
            done.append(Repaired(job_id, destination, verdicts))
        return done

    def _way(self, request: CompareRequest, kind: Kind) -> tuple[str | None, str]:
        """Return from which source (None: from a folder's files) and to which destination what is of `kind` goes."""
        giving, destination = (request.a, request.b) if kind is Kind.ONLY_A else (request.b, request.a)
        source = giving if giving in self.settings.sources else None
        if source is None and not self._is_folder(giving):
            raise UsageError(f"--repair: {giving} is neither a source nor a folder, so that nothing can be taken from it")
        if source is not None and self.settings.sources[source].can.find is None:
            raise UsageError(f"--repair: source {source} has no port: add it to [sources.{source}]")
        if destination not in self.settings.destinations:
            raise UsageError(f"--repair: {destination} is no destination, so that nothing can be sent to it")
        return source, destination

    def _is_folder(self, name: str) -> bool:
        table = self.settings.destinations.get(name)
        return Path(name).is_absolute() if table is None else table.can.folder is not None
