"""At start: spool and ledger are reconciled, before the first association is accepted.

"Bytes" are a record in a segment of the log, or a file of its own.

================================  =====================================================================
spool and ledger                  what is done
================================  =====================================================================
partial file, unfinished record   removed: nobody was told that it was kept
bytes without a row               adopted with the provenance they carry, or quarantined where they are damaged; content that was
                                  recorded under their SOP Instance UID after they were written stays the one that is delivered
bytes without a row, of a `send`  removed: its command goes to destinations of its own, and takes it in again
bytes without a row, a copy       removed: they were being moved out of their segment, and the row has the other copy; or the same
                                  content came again later, and the row has that
row kept, bytes there             nothing
row kept, no bytes                missing; what is still to be sent of it is held with the reason
row released, bytes there         a file is removed: the crash came between the two; a record goes with its segment
row missing, bytes there again    kept again where they are whole; what is held waits for a person
row kept and unrouted             routed anew, for the routes may have changed
damage between two records        quarantined as it is
bytes that cannot be read         left for the next start
================================  =====================================================================

An unfinished record can only be the last of its segment: the next one is begun after it is durable. One segment or folder is looked
at at a time, so that memory does not grow with what is held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from gateway.core.domain import Mode
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.core.log import get_logger
from gateway.dicom.head import read_head
from gateway.intake.judging import Judging
from gateway.intake.recorder import record_spooled
from gateway.intake.storage import LOCAL_ADDRESS, SEND_ASSOCIATION, Correlate, Route, arrival, asked, complete
from gateway.ledger import Ledger
from gateway.ledger.received.instances import (
    BytesState,
    StoredInstance,
    at_locations,
    find,
    route_anew,
    unrouted,
    with_location_prefix,
)
from gateway.ledger.received.keeping import at_this_node, kept_prefixes, mark_kept, mark_missing
from gateway.spool import LOG_PREFIX, SEGMENT_PREFIX_LENGTH, Spool, SpoolEntry

_log = get_logger()

_PAGE = 500


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """The instances that `recover` found, by what it did with them.

    `corrupt` are those moved to the spool's ``corrupt`` folder; `unreadable` those left for the next start, where a
    segment counts as one.
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
    judging: Judging
    clock: Callable[[], float]
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def spooled(self) -> None:
        swept = self.spool.sweep()
        self.count("swept", swept.unfinished)
        self.count("corrupt", swept.corrupt)
        self.count("unreadable", len(swept.unreadable))
        met = set(swept.unreadable)
        for prefix, locations in self.spool.locations():
            self.group(prefix, locations)
            met.add(prefix)
        recorded = self.ledger.ask(lambda connection: kept_prefixes(connection, LOG_PREFIX, SEGMENT_PREFIX_LENGTH))
        for prefix in sorted(recorded - met):
            self.group(prefix, [])

    def group(self, prefix: str, locations: list[str]) -> None:
        rows = self.ledger.ask(lambda connection: with_location_prefix(connection, prefix))
        present = set(locations)
        states = {location: (instance_id, state) for instance_id, location, state in rows}
        gone = [instance_id for instance_id, location, state in rows if state is BytesState.KEPT and location not in present]
        if gone:
            with self.ledger.read() as connection:
                gone = at_this_node(connection, gone)
        if gone:
            self.count("missing", self.ledger.write(lambda connection: mark_missing(connection, gone, now=self.clock())))
            _log.error("spool_bytes_missing", count=len(gone), instance_ids=gone[:20])
        for location in locations:
            instance_id, state = states.get(location, (0, None))
            try:
                self.one(location, instance_id, state)
            except SpoolIOError as error:
                self.unreadable(location, error)

    def one(self, location: str, instance_id: int, state: BytesState | None) -> None:
        if state is BytesState.RELEASED:
            self.count("removed", int(self.spool.release(location) and not location.startswith(LOG_PREFIX)))
        elif state is BytesState.MISSING:
            self.again(location, instance_id)
        elif state is None:
            self.orphan(location)

    def again(self, location: str, instance_id: int) -> None:
        if self.trusted(location) is not None:
            self.count("found_again", self.ledger.write(lambda connection: mark_kept(connection, [instance_id])))

    def orphan(self, location: str) -> None:
        if self.moved(location):
            self.count("removed", int(self.spool.remove(location)))
            return
        entry = self.trusted(location, unfinished=self.spool.is_last(location))
        if entry is None:
            return
        if (entry.provenance.association, entry.provenance.address) == (SEND_ASSOCIATION, LOCAL_ADDRESS):
            self.count("swept", int(self.spool.remove(location)))
            return
        with self.spool.open(entry.content) as source:
            head = read_head(source.read, entry.identity.transfer_syntax_uid, self.keywords)
        identity = complete(entry.identity, head, entry.provenance)
        if self.came_again(entry, identity.sop_instance_uid):
            self.count("removed", int(self.spool.remove(location)))
            return
        purpose = self.correlate(entry.provenance, identity.sop_instance_uid)
        routed = self.route(head.attributes(entry.provenance))
        judgement = self.judging.of_spooled(self.spool, entry.content, identity.transfer_syntax_uid)
        adopted = replace(
            arrival(identity, entry.provenance, entry.content, routed=routed, purpose=purpose, at=entry.written_at),
            identity=replace(identity, transfer_syntax_uid=judgement.transfer_syntax_uid),
            unfit=judgement.unfit,
        )
        recorded = record_spooled(self.spool, self.ledger, adopted, late=True)
        self.count("adopted")
        _log.debug("orphan_adopted", sop_instance_uid=identity.sop_instance_uid, outcome=recorded.outcome.value)

    def moved(self, location: str) -> bool:
        """Tell whether a row has the other copy of bytes that were being moved out of their segment."""
        twin = self.spool.twin_of(location)
        row = self.ledger.ask(partial(at_locations, locations=[twin])).get(twin) if twin else None
        if row is None or row.bytes_state is BytesState.MISSING:
            return False
        if row.bytes_state is BytesState.RELEASED:
            return True
        try:
            with self.spool.open(row.content):
                return True
        except SpoolMissing:
            return False

    def came_again(self, entry: SpoolEntry, sop_instance_uid: str) -> bool:
        """Tell whether a row has the same content from a later arrival: what the earlier one owed was owed anew then."""
        known = self.ledger.ask(lambda connection: find(connection, sop_instance_uid))
        content = entry.content.digest, entry.content.length
        return any(
            (row.content.digest, row.content.length) == content and row.received_at >= entry.written_at
            for row in known
            if row.bytes_state is not BytesState.MISSING
        )

    def trusted(self, location: str, *, unfinished: bool = False) -> SpoolEntry | None:
        try:
            return self.spool.describe(location)
        except SpoolMissing as error:
            if unfinished:
                self.count("swept", int(self.spool.remove(location)))
                return None
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
            page = self.ledger.ask(partial(unrouted, after=after, limit=_PAGE))
            if not page:
                return
            after = page[-1].id
            found = [(instance.id, destinations) for instance in page if (destinations := self.destinations(instance))]
            if found:
                self.count("routed", self.queue(found))

    def destinations(self, instance: StoredInstance) -> Mapping[str, Mode | None]:
        try:
            with self.spool.open(instance.content) as source:
                head = read_head(source.read, instance.identity.transfer_syntax_uid, self.keywords)
        except SpoolMissing as error:
            _log.error("unrouted_bytes_missing", sop_instance_uid=instance.identity.sop_instance_uid, reason=str(error))
            return {}
        except SpoolIOError as error:
            self.unreadable(instance.content.location, error)
            return {}
        return self.route(head.attributes(instance.provenance))

    def queue(self, found: list[tuple[int, Mapping[str, Mode | None]]]) -> int:
        now = self.clock()

        def change(connection: Connection) -> None:
            for instance_id, routed in found:
                route_anew(connection, instance_id, tuple(routed), now=now, modes=asked(routed))

        self.ledger.write(change)
        return len(found)


def recover(
    spool: Spool,
    ledger: Ledger,
    *,
    route: Route,
    keywords: Collection[str] = (),
    correlate: Correlate = lambda _provenance, _uid: None,
    judging: Judging | None = None,
    clock: Callable[[], float] = time.time,
) -> RecoveryReport:
    """Reconcile `spool` with `ledger` as the table above says, and return what was found.

    To be called before anything is received. The same call after a crash in the middle carries on.

    Raises:
        SpoolIOError: the spool's folders cannot be read or changed.
        LedgerUnavailable: the ledger cannot take what was found.

    """
    recovery = _Recovery(spool, ledger, route, keywords, correlate, judging or Judging(), clock)
    recovery.spooled()
    recovery.route_anew()
    spool.tidy()
    report = RecoveryReport(**recovery.counts)
    _log.info("spool_reconciled", **recovery.counts)
    return report
