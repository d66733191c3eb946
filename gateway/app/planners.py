"""Builds the sync, migration and comparison services from the rooms that they stand on; `gateway.app.lifecycle` starts them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from gateway.app.skip_existing import possible_destinations
from gateway.archives.orthanc import Orthanc
from gateway.archives.places import Place, folder, place
from gateway.archives.places.verified import VerifiedPlace
from gateway.association.dimse.services import StorageService
from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.core.domain import WORKING
from gateway.core.tasks.wake_ups import tell_trio
from gateway.intake import FileOutcome, Judging, bring
from gateway.jobs import migrate
from gateway.jobs.compare import Comparisons, Repaired
from gateway.jobs.compare.daily import Daily
from gateway.jobs.compare.filing import Filing
from gateway.jobs.migrate import Migrations
from gateway.jobs.migrate.listing import list_studies
from gateway.jobs.migrate.room import Room
from gateway.jobs.starts import Starts
from gateway.jobs.sync.context import SyncContext
from gateway.jobs.sync.service import Syncs
from gateway.jobs.working_hours import Window, utc_now
from gateway.ledger import Ledger
from gateway.ledger.deliveries import progress
from gateway.ledger.deliveries.progress import Scope
from gateway.ledger.received.instances import Recorded
from gateway.retrieve import Retriever
from gateway.spool import Spool

SETTLE_S = 3600.0
"""The time that a scheduled comparison waits for the deliveries of its repairs before it looks again."""

SETTLE_LOOK_S = 1.0


def migrations(
    settings: Settings,
    ledger: Ledger,
    retriever: Retriever,
    *,
    barrier: Callable[[], None],
    has_room: Callable[[], bool],
    whole: Callable[[], AbstractAsyncContextManager[None]],
) -> Migrations:
    """Return what makes migrations; `whole` is entered for as long as one runs, and cancels it when the gateway stops."""
    room = Room(settings, has_room, partial(_stored_bytes, settings))
    context = migrate.MigrateContext(
        retriever,
        ledger,
        barrier,
        lists=partial(list_studies, retriever),
        crowded=room.crowded,
        original=partial(_original, settings),
    )
    return Migrations(settings, context, possible=partial(possible_destinations, settings), whole=whole)


def comparisons(
    settings: Settings,
    ledger: Ledger,
    spool: Spool,
    retriever: Retriever,
    scratch: Path,
    *,
    pool: Pool,
    nudge: Callable[[str], None],
    listens: bool,
) -> Comparisons:
    """Return what makes comparisons.

    `scratch` is the folder for files while they are compared; what an earlier process left in it is removed. `pool` decodes their
    pixels. `nudge` tells a destination that there is something to deliver. `listens` says that sources can send to us.
    """
    shutil.rmtree(scratch, ignore_errors=True)

    def queued(what: Recorded) -> None:
        for name in what.queued:
            nudge(name)

    def take(files: Mapping[str, Path], destination: str, retrieval_id: int) -> Iterator[str]:
        us = settings.gateway.ae_title
        for event in bring(files, destination, retrieval_id, spool, ledger, ae_title=us, recorded=queued, judging=Judging(pool)):
            yield event.reason if event.outcome in {FileOutcome.SKIPPED, FileOutcome.FAILED} else ""

    def opened(name: str) -> Place:
        if Path(name).is_absolute():
            return folder(Path(name))
        source = settings.sources.get(name)
        moves = listens and source is not None and source.port is not None and source.retrieve != "get"
        return place(settings, name, ledger, Capturer(retriever, name) if moves else None)

    return Comparisons(settings, retriever, Filing(ledger, take), opened, scratch, pool)


class Capturer:
    """Has `source` send single instances by C-MOVE for the threads that compare them (`gateway.archives.places.dicom.Capture`)."""

    def __init__(self, retriever: Retriever, source: str) -> None:
        self._retriever = retriever
        self._source = source
        self._token = trio.lowlevel.current_trio_token()
        self._scopes: set[trio.CancelScope] = set()

    def __call__(self, uids: tuple[str, str, str], storage: StorageService) -> str:
        """Have one instance sent to `storage`; return why it did not come, nothing where it did."""
        return trio.from_thread.run(self._capture, uids, storage)

    def close(self) -> None:
        """Give up what is asked for: a thread that nobody waits for any more would wait for it all the same."""
        tell_trio(self._token, self._cancel)

    async def _capture(self, uids: tuple[str, str, str], storage: StorageService) -> str:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await self._retriever.capture(self._source, uids, storage)
            finally:
                self._scopes.discard(scope)
        return "it was given up"

    def _cancel(self) -> None:
        for scope in self._scopes:
            scope.cancel()


def daily(
    settings: Settings, ledger: Ledger, comparisons: Comparisons, reports: Path, *, barrier: Callable[[], None], starts: Starts
) -> Daily:
    """Return what runs the comparisons of the configuration; `barrier` is as above."""

    def working(repaired: Repaired) -> bool:
        scope = Scope(job_id=repaired.job_id, destinations=(repaired.destination,))
        states = ledger.ask(partial(progress.count_states, scope=scope), after=barrier)
        return any(row.state in WORKING for row in states)

    async def settle(repaired: Repaired) -> None:
        with trio.move_on_after(SETTLE_S):
            while True:
                if not await trio.to_thread.run_sync(working, repaired):
                    return
                await trio.sleep(SETTLE_LOOK_S)

    return Daily(comparisons, reports, settle, hours=lambda when: Window(settings.hours(when)), now=utc_now, starts=starts)


def _stored_bytes(settings: Settings, destination: str) -> int:
    """Return how much a destination holds on its disk. Raises WebServiceError."""
    rest = settings.destinations[destination].can.rest
    assert rest is not None
    with closing(Orthanc(rest)) as orthanc:
        return orthanc.statistics().disk_bytes


def _original(settings: Settings, source: str) -> OrthancOriginal:
    rest = settings.sources[source].rest
    assert rest is not None
    return OrthancOriginal(Orthanc(rest))


@dataclass(frozen=True)
class OrthancOriginal:
    """A source that may be deleted from, by its REST API; see `gateway.jobs.migrate.context.Original`."""

    orthanc: Orthanc

    def instances(self, study_instance_uid: str) -> dict[str, set[str]]:
        """Return the SOP Instance UIDs that it holds, by its identifiers: one study for each patient id. Raises WebServiceError."""
        return {
            study: {
                instance.uid("Instance")
                for series in self.orthanc.series_of(study)
                for instance in self.orthanc.instances_of(series.id)
            }
            for study in self.orthanc.lookup("Study", study_instance_uid)
        }

    def delete(self, identifiers: Collection[str]) -> None:
        """Delete studies by its identifiers. Raises WebServiceError."""
        for identifier in identifiers:
            self.orthanc.delete("Study", identifier)

    def close(self) -> None:
        """End its connections."""
        self.orthanc.close()


def syncs(settings: Settings, ledger: Ledger, retriever: Retriever, *, barrier: Callable[[], None], starts: Starts) -> Syncs:
    """Return what makes syncs; `barrier` returns once the ledger has everything that was answered 0000."""
    # A source and a destination may have one name and be two peers; each of them is asked as what it is here.
    sources, destinations = (settings.model_copy(update={other: {}}) for other in ("destinations", "sources"))

    def verified(name: str) -> Place:
        return VerifiedPlace(name, ledger)

    context = SyncContext(
        retriever,
        ledger,
        barrier,
        source=partial(place, sources, ledger=ledger),
        destination=partial(place, destinations, ledger=ledger),
        verified=verified,
    )
    return Syncs(settings, context, possible=partial(possible_destinations, settings), starts=starts)
