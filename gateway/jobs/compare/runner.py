"""A comparison at work: both sides asked at once, day by day and study by study, and what only one has retrieved. Runs in trio.

Places block; they are asked on threads. A study that cannot be compared is told as such and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import trio

from gateway.archives.places import Place, StudyHeld, Unheld
from gateway.codec import contents
from gateway.codec.workers.pool import Pool
from gateway.core.domain import Basis, VerdictKind
from gateway.core.errors import GatewayError, Incomparable, UsageError, leaf
from gateway.core.log import get_logger
from gateway.jobs.compare import differences
from gateway.jobs.compare.differences import Difference, Kind
from gateway.jobs.compare.hours import Hours
from gateway.jobs.compare.repair import Fetch
from gateway.jobs.compare.request import CompareRequest, Level
from gateway.retrieve import Event, JobSpec, Retriever, Session, StudyPlanned, Verdict

T = TypeVar("T")
log = get_logger()

AT_A_TIME = 4
"""Studies that are compared at a time."""

Tell = Callable[["Outcome"], Awaitable[None]]


@dataclass
class Outcome:
    """The result of a look: the differences that count, and how much was compared."""

    differences: list[Difference] = field(default_factory=list)
    studies: int = 0
    series: int = 0
    instances: int = 0
    contents: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Tell whether nothing differs."""
        return not self.differences


@dataclass
class Comparison:
    """One comparison of two places, within `hours`.

    `folder` is private and holds files for as long as they are compared; `pool` decodes their pixels where it must be.
    """

    request: CompareRequest
    a: Place
    b: Place
    folder: Path
    pool: Pool
    tell: Tell
    hours: Hours = field(default_factory=Hours)
    threads: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 4 * AT_A_TIME))

    async def look(self) -> Outcome:
        """Compare, and return what differs, in the order of studies.

        Raises:
            AssociationError, WebServiceError: a place cannot be asked which studies it has.
            UsageError: a place cannot be asked by these keys.
        """
        outcome = Outcome()
        for keys in self.request.queries():
            await self._some(outcome, keys)
        doubts = dict.fromkeys((*self.a.doubts(), *self.b.doubts()))
        self._note(outcome, [Difference(Kind.UNKNOWN, "", note=doubt) for doubt in doubts])
        outcome.differences.sort(key=lambda one: (one.study, one.series, one.instance))
        outcome.remarks = tuple(dict.fromkeys((*self.a.remarks(), *self.b.remarks())))
        return outcome

    async def _some(self, outcome: Outcome, keys: Mapping[str, str]) -> None:
        """Compare the studies that match `keys` on either side."""
        a, b = await self._both(lambda place: place.studies(keys))
        await self._by_uid(a, b)
        self._note(outcome, differences.of_studies(a, b, counts=self.request.level is Level.STUDY))
        outcome.studies += len(a.keys() | b.keys())
        common = iter(sorted(a.keys() & b.keys()) if self.request.level is not Level.STUDY else ())
        async with trio.open_nursery() as nursery:
            for _ in range(AT_A_TIME):
                nursery.start_soon(self._studies, outcome, common)
        await self.tell(outcome)

    async def _by_uid(self, a: dict[str, StudyHeld], b: dict[str, StudyHeld]) -> None:
        """Look for what only one side lists by its UID at the other: there it may stand under another date or name."""
        for uids, held, place in ((a.keys() - b.keys(), b, self.b), (b.keys() - a.keys(), a, self.a)):
            for uid in sorted(uids):
                held.update(await self._ask(place.studies, {"StudyInstanceUID": uid}))

    async def _studies(self, outcome: Outcome, common: Iterable[str]) -> None:
        for study in common:
            try:
                await self._study(outcome, study)
            except UsageError:
                raise
            except (GatewayError, OSError) as error:
                why = str(error) if isinstance(error, GatewayError) else error.strerror or type(error).__name__
                self._note(outcome, [Difference(Kind.UNKNOWN, study, note=why)])
            await self.tell(outcome)

    async def _study(self, outcome: Outcome, study: str) -> None:
        a, b = await self._both(lambda place: place.series(study))
        self._note(outcome, differences.of_series(study, a, b, counts=self.request.level is Level.SERIES))
        outcome.series += len(a.keys() | b.keys())
        if self.request.level is Level.INSTANCE:
            for series in sorted(a.keys() & b.keys()):
                await self._series(outcome, study, series)

    async def _series(self, outcome: Outcome, study: str, series: str) -> None:
        a, b = await self._both(lambda place: place.instances(study, series))
        for place, listed, others in ((self.a, a, b), (self.b, b, a)):
            if listed and (missing := others - listed):
                # A list may be cut short: a place does not lack what it has when it is asked for it.
                listed.update(await self._ask(place.holds, study, series, missing, sorted(listed)[:1]))
        self._note(outcome, differences.of_instances(study, series, a, b))
        outcome.instances += len(a | b)
        if self.request.content:
            for instance in sorted(a & b):
                await self._content(outcome, study, series, instance)

    async def _content(self, outcome: Outcome, study: str, series: str, instance: str) -> None:
        """Compare what is in an instance that both have."""

        def compare() -> tuple[str, ...]:
            with TemporaryDirectory(dir=self.folder) as folder:
                for place, name in ((self.a, "a"), (self.b, "b")):
                    place.fetch(study, series, instance, Path(folder) / name)
                return contents.differing(Path(folder) / "a", Path(folder) / "b", self.pool)

        try:
            found = await self._ask(compare)
        except (Incomparable, Unheld) as error:
            self._note(outcome, [Difference(Kind.UNKNOWN, study, series, instance, note=str(error))])
        else:
            outcome.contents += 1
            self._note(outcome, [Difference(Kind.CONTENT, study, series, instance, elements=found)] if found else [])

    def _note(self, outcome: Outcome, found: Iterable[Difference]) -> None:
        outcome.differences += [one for one in found if differences.relevant(one, self.request.ignore)]

    async def _both(self, ask: Callable[[Place], T]) -> tuple[T, T]:
        """Ask both sides at once."""
        answers: dict[str, T] = {}

        async def one(name: str, place: Place) -> None:
            answers[name] = await self._ask(ask, place)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, "a", self.a)
                nursery.start_soon(one, "b", self.b)
        except* (GatewayError, OSError) as group:
            raise leaf(group) from None
        return answers["a"], answers["b"]

    async def _ask(self, question: Callable[..., T], *arguments: object) -> T:
        ask = partial(trio.to_thread.run_sync, partial(question, *arguments), limiter=self.threads, abandon_on_cancel=True)
        return await self.hours.within(ask)


async def fetch_all(
    retriever: Retriever, source: str, spec: JobSpec, fetches: Sequence[Fetch], hours: Hours, *, at_a_time: int
) -> tuple[int, list[Verdict]]:
    """Retrieve what repairs a side within `hours`; return the id of the job and a verdict for each study or part of one.

    The parts of one study follow each other in `fetches`.

    Raises:
        UsageError: as `Retriever.job`.
        LedgerError: the ledger cannot be used.
    """
    verdicts: list[Verdict] = []
    # One after the other: what is broken off is carried on as the newest retrieval of its study.
    left = iter([list(parts) for _, parts in groupby(fetches, lambda fetch: fetch.wanted.study_instance_uid)])

    async def work(session: Session) -> None:
        for parts in left:
            for fetch in parts:
                verdicts.append(await _fetched_or_failed(session, fetch, hours))

    try:
        async with retriever.job(source, spec) as session, trio.open_nursery() as nursery:
            for _ in range(at_a_time):
                nursery.start_soon(work, session)
    except* GatewayError as group:
        raise leaf(group) from None
    return session.job_id, verdicts


async def _fetched_or_failed(session: Session, fetch: Fetch, hours: Hours) -> Verdict:
    """Retrieve one study, or a part of it; an error is this one's, and the others are retrieved all the same."""
    study = fetch.wanted.study_instance_uid
    try:
        return await _fetched(session, fetch, hours)
    except GatewayError as error:
        note = str(error)
    except Exception as error:  # the root of a study's retrieval
        log.exception("repair_failed", study=study)
        note = f"internal error: {type(error).__name__}"
    return Verdict(VerdictKind.FAILED, study, Basis.UIDS, None, 0, note=note)


async def _fetched(session: Session, fetch: Fetch, hours: Hours) -> Verdict:
    """Retrieve one study, or a part of it; what came before its hours ended is not moved again."""
    begun = False

    async def tell(event: Event) -> None:
        nonlocal begun
        begun = begun or isinstance(event, StudyPlanned)

    async def retrieve() -> Verdict:
        return await session.retrieve(fetch.wanted, skip_existing=fetch.skip_existing, fresh=not begun, tell=tell)

    return await hours.within(retrieve)
