"""The comparisons of a gateway: made from requests, with their places, repaired through the retriever. Runs in trio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from gateway.compare.differences import Difference, Kind
from gateway.compare.repair import directions, fetches
from gateway.compare.request import CompareRequest, Repair
from gateway.compare.runner import Comparison, Outcome, Tell, fetch_all
from gateway.errors import UsageError
from gateway.files import make_private_folder
from gateway.holdings import Place
from gateway.retrieve import Errand, Retriever, Verdict
from gateway.settings import Settings


@dataclass(frozen=True)
class Repaired:
    """What was brought to one side: the job, where it went, and the verdicts."""

    job_id: int
    destination: str
    verdicts: Sequence[Verdict]


Settle = Callable[[Repaired], Awaitable[object]]
"""Waits until the deliveries of a repair are through."""


@dataclass(frozen=True)
class Comparisons:
    """Makes comparisons. `place` opens a place by name or by the path of a folder; `folder` is theirs alone."""

    settings: Settings
    retriever: Retriever
    place: Callable[[str], Place]
    folder: Path
    clock: Callable[[], float] = time.time

    @asynccontextmanager
    async def opened(self, request: CompareRequest, tell: Tell) -> AsyncIterator[Comparison]:
        """Open a comparison for the ``async with``.

        Raises:
            UsageError: there is no such place, it gives no files for --content, or the repair has no way.
        """
        for kind in directions(request.repair) if request.repair else ():
            self._way(request, kind)
        make_private_folder(self.folder)
        with closing(self.place(request.a)) as a, closing(self.place(request.b)) as b:
            for place in (a, b) if request.content else ():
                if not place.gives_files:
                    raise UsageError(f"--content: {place.name} gives no files: it needs `rest` or `dicomweb` in its table")
            yield Comparison(request, a, b, self.folder, tell)

    async def carry_out(self, request: CompareRequest, tell: Tell, settle: Settle) -> tuple[Outcome, list[Repaired]]:
        """Compare, repair where that is asked, and compare again; return the last outcome and what was repaired.

        Raises:
            UsageError: there is no such place, or what is asked has no way.
            AssociationError, WebServiceError: a place cannot be asked which studies it has.
            LedgerError: the ledger cannot be used.
        """
        async with self.opened(request, tell) as comparison:
            outcome = await comparison.look()
            if request.repair is None or outcome.same:
                return outcome, []
            repaired = await self.repair(request, outcome.differences)
            for done in repaired:
                await settle(done)
            return await comparison.look(), repaired

    async def repair(self, request: CompareRequest, found: Sequence[Difference]) -> list[Repaired]:
        """Bring to each side what is asked; what differs in content is overwritten in one direction only.

        Raises:
            UsageError, LedgerError: as `Retriever.job`.
        """
        done = []
        for kind in directions(request.repair) if request.repair else ():
            wanted = fetches(found, kind, overwrite=request.repair is not Repair.BOTH)
            if not wanted:
                continue
            source, destination = self._way(request, kind)
            fingerprint = request.fingerprint(f"{destination} {self.clock()}")
            errand = Errand("compare", fingerprint, request.criteria(), (destination,))
            at_a_time = self.settings.sources[source].moves + 1
            job_id, verdicts = await fetch_all(self.retriever, source, errand, wanted, at_a_time=at_a_time)
            done.append(Repaired(job_id, destination, verdicts))
        return done

    def _way(self, request: CompareRequest, kind: Kind) -> tuple[str, str]:
        """Return from which source and to which destination what is of `kind` goes."""
        source, destination = (request.a, request.b) if kind is Kind.ONLY_A else (request.b, request.a)
        if source not in self.settings.sources:
            raise UsageError(f"--repair: {source} is no source, so that nothing can be retrieved from it (a folder: gateway send)")
        if self.settings.sources[source].port is None:
            raise UsageError(f"--repair: source {source} has no port: add it to [sources.{source}]")
        if destination not in self.settings.destinations:
            raise UsageError(f"--repair: {destination} is no destination, so that nothing can be sent to it")
        return source, destination
