"""At start: spool and ledger are reconciled, before the first association is accepted.

===============================  ======================================================================
spool and ledger                 what is done
===============================  ======================================================================
partial file                     removed: nobody was told that it was kept
file without a row               adopted with the provenance it carries, or quarantined where it is damaged; content that was
                                 recorded under its SOP Instance UID after it was written stays the one that is delivered
file without a row, of a `send`  removed: its command goes to destinations of its own, and takes it in again
row kept, file there             nothing
row kept, no file                missing; what is still to be sent of it is held with the reason
row released, file there         the file is removed: the crash came between the two
row missing, file there again    kept again where the bytes are whole; what is held waits for a person
row kept and unrouted            routed anew, for the routes may have changed
file that cannot be read         left for the next start
===============================  ======================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from gateway.errors import SpoolIOError, SpoolMissing
from gateway.intake.attributes import read_head
from gateway.intake.recorder import record_spooled
from gateway.intake.storage import LOCAL_ADDRESS, SEND_ASSOCIATION, Correlate, Route, complete
from gateway.ledger import Ledger
from gateway.ledger.instances import (
    Arrival,
    BytesState,
    StoredInstance,
    route_anew,
    unrouted,
    with_location_prefix,
)
from gateway.ledger.keeping import mark_kept, mark_missing
from gateway.spool import Spool, SpoolEntry

_log = structlog.get_logger()

_PAGE = 500


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What `recover` found and did, in instances.

    `corrupt` are files moved to the spool's ``corrupt`` folder, `unreadable` those left for the next start.
    """

    swept: int = 0
    adopted: int = 0
    corrupt: int = 0
    missing: int = 0
    found_again: int = 0
    removed: int = 0
    routed: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class _Recovery:
    spool: Spool
    ledger: Ledger
    route: Route
    keywords: Collection[str]
    correlate: Correlate
    clock: Callable[[], float]
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def folder(self, prefix: str, locations: list[str]) -> None:
        with self.ledger.read() as connection:
            rows = with_location_prefix(connection, prefix)
        present = set(locations)
        states = {location: (instance_id, state) for instance_id, location, state in rows}
        gone = [instance_id for instance_id, location, state in rows if state is BytesState.KEPT and location not in present]
        if gone:
            self.count("missing", self.ledger.write(lambda connection: mark_missing(connection, gone, now=self.clock())))
            _log.error("spool_bytes_missing", count=len(gone), instance_ids=gone[:20])
        for location in locations:
            instance_id, state = states.get(location, (0, None))
            try:
                self.file(location, instance_id, state)
            except SpoolIOError as error:
                self.unreadable(location, error)

    def file(self, location: str, instance_id: int, state: BytesState | None) -> None:
        if state is BytesState.RELEASED:
            self.count("removed", int(self.spool.remove(location)))
        elif state is BytesState.MISSING:
            self.again(location, instance_id)
        elif state is None:
            self.orphan(location)

    def again(self, location: str, instance_id: int) -> None:
        if self.trusted(location) is not None:
            self.count("found_again", self.ledger.write(lambda connection: mark_kept(connection, [instance_id])))

    def orphan(self, location: str) -> None:
        entry = self.trusted(location)
        if entry is None:
            return
        if (entry.provenance.association, entry.provenance.address) == (SEND_ASSOCIATION, LOCAL_ADDRESS):
            self.count("swept", int(self.spool.remove(location)))
            return
        with self.spool.open(entry.content) as source:
            head = read_head(source.read, entry.identity.transfer_syntax_uid, self.keywords)
        identity = complete(entry.identity, head, entry.provenance)
        destinations = tuple(self.route(head.attributes(entry.provenance)))
        retrieval_id = self.correlate(entry.provenance, identity.sop_instance_uid)
        arrival = Arrival(identity, entry.provenance, entry.content, destinations, entry.written_at, retrieval_id)
        recorded = record_spooled(self.spool, self.ledger, arrival, late=True)
        self.count("adopted")
        _log.info("orphan_adopted", sop_instance_uid=identity.sop_instance_uid, outcome=recorded.outcome.value)

    def trusted(self, location: str) -> SpoolEntry | None:
        try:
            return self.spool.describe(location)
        except SpoolMissing as error:
            kept = self.spool.quarantine(location)
            self.count("corrupt")
            _log.error("spool_file_corrupt", file=kept.name, reason=str(error))
            return None

    def unreadable(self, location: str, error: SpoolIOError) -> None:
        """Leave one file that cannot be read or removed now for the next start: the others must not wait for it."""
        self.count("unreadable")
        _log.error("spool_file_unreadable", location=location, error=str(error))

    def route_anew(self) -> None:
        after = 0
        while True:
            with self.ledger.read() as connection:
                page = unrouted(connection, after=after, limit=_PAGE)
            if not page:
                return
            after = page[-1].id
            found = [(instance.id, destinations) for instance in page if (destinations := self.destinations(instance))]
            if found:
                self.count("routed", self.queue(found))

    def destinations(self, instance: StoredInstance) -> tuple[str, ...]:
        try:
            with self.spool.open(instance.content) as source:
                head = read_head(source.read, instance.identity.transfer_syntax_uid, self.keywords)
        except SpoolMissing as error:
            _log.error("unrouted_bytes_missing", sop_instance_uid=instance.identity.sop_instance_uid, reason=str(error))
            return ()
        except SpoolIOError as error:
            self.unreadable(instance.content.location, error)
            return ()
        return tuple(self.route(head.attributes(instance.provenance)))

    def queue(self, found: list[tuple[int, tuple[str, ...]]]) -> int:
        now = self.clock()

        def change(connection: Connection) -> None:
            for instance_id, names in found:
                route_anew(connection, instance_id, names, now=now)

        self.ledger.write(change)
        return len(found)


def recover(
    spool: Spool,
    ledger: Ledger,
    *,
    route: Route,
    keywords: Collection[str] = (),
    correlate: Correlate = lambda _provenance, _uid: None,
    clock: Callable[[], float] = time.time,
) -> RecoveryReport:
    """Reconcile `spool` with `ledger` as the table above says, and return what was found.

    To be called before anything is received. The same call after a crash in the middle carries on.

    Raises:
        SpoolIOError: the spool's folders cannot be read or changed.
        LedgerUnavailable: the ledger cannot take what was found.

    """
    recovery = _Recovery(spool, ledger, route, keywords, correlate, clock)
    recovery.count("swept", spool.sweep())
    for prefix, locations in spool.locations():
        recovery.folder(prefix, locations)
    recovery.route_anew()
    report = RecoveryReport(**recovery.counts)
    _log.info("spool_reconciled", **recovery.counts)
    return report
