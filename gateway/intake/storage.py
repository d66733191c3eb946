"""The Storage SCP's service: a C-STORE request becomes a durable, recorded instance, or a refusal (PS3.4 §B.2, PS3.7 §9.1.1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import structlog
from sqlalchemy import Connection

from gateway.association.services import AssociationInfo, StoreRequest
from gateway.domain import Attributes, Content, InstanceIdentity, Provenance, is_uid
from gateway.errors import LedgerError, Refusal, SpoolError
from gateway.intake.attributes import DataSetHead, read_head
from gateway.ledger import Ledger
from gateway.ledger.instances import Arrival, ArrivalOutcome, Recorded, record
from gateway.ledger.keeping import mark_missing
from gateway.spool import Spool, SpoolWriter

_log = structlog.get_logger()

Route = Callable[[Attributes], Sequence[str]]
"""Names the destinations of an instance; pure."""

Correlate = Callable[[Provenance, str], int | None]
"""Names the retrieval that the SOP Instance UID of a C-STORE is counted to; None is unsolicited. Thread-safe."""

SEND_ASSOCIATION = "send"
LOCAL_ADDRESS = "local"
"""Provenance of what ``send`` takes in: no association brought it."""

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
SOP_CLASS_NOT_SUPPORTED = 0x0122
INVALID_SOP_INSTANCE = 0x0117


class StorageIntake:
    """Receives instances for a Storage SCP. Thread-safe."""

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        *,
        route: Route,
        keywords: Collection[str] = (),
        correlate: Correlate = lambda _provenance, _uid: None,
        recorded: Callable[[Recorded], None] = lambda _recorded: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take instances into `spool` and `ledger`.

        `keywords` are the DICOM keywords that `route` asks for. `recorded` hears of each instance after it is durable, on
        the association's thread, and must return at once. `clock` gives UTC seconds since the epoch.
        """
        self.spool = spool
        self.ledger = ledger
        self.recorded = recorded
        self._route = route
        self._keywords = frozenset(keywords)
        self._correlate = correlate
        self._clock = clock

    def receive(self, association: AssociationInfo, request: StoreRequest) -> StorageReception:
        """Begin one instance.

        Raises:
            Refusal: 0117 or 0122 for a UID that is none, A700 where there is no room.

        """
        if not is_uid(request.sop_instance_uid):
            raise Refusal(INVALID_SOP_INSTANCE, "the Affected SOP Instance UID is no UID")
        if not is_uid(request.sop_class_uid):
            raise Refusal(SOP_CLASS_NOT_SUPPORTED, "the Affected SOP Class UID is no UID")
        identity = InstanceIdentity(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        provenance = _provenance(association, request)
        try:
            writer = self.spool.create(identity, provenance)
        except SpoolError as error:
            raise _out_of_resources(error, provenance, identity) from error
        return StorageReception(self, writer, identity, provenance)

    def decide(self, read: DataSetHead, identity: InstanceIdentity, provenance: Provenance) -> tuple[tuple[str, ...], int | None]:
        """Return the destinations of an instance, and the retrieval it is counted to."""
        destinations = tuple(self._route(read.attributes(provenance)))
        return destinations, self._correlate(provenance, identity.sop_instance_uid)

    def read_head(self, writer: SpoolWriter, transfer_syntax_uid: str) -> DataSetHead:
        """Return what routing asks of the data set that `writer` holds."""
        return read_head(writer.read, transfer_syntax_uid, self._keywords)

    def now(self) -> float:
        """Return the time in UTC seconds since the epoch."""
        return self._clock()


class StorageReception:
    """One instance on its way in. Ends with `commit` or `discard`; one thread at a time."""

    def __init__(self, intake: StorageIntake, writer: SpoolWriter, identity: InstanceIdentity, provenance: Provenance) -> None:
        self._intake = intake
        self._writer = writer
        self._identity = identity
        self._provenance = provenance

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes.

        Raises:
            Refusal: A700, they cannot be kept.

        """
        try:
            self._writer.write(fragments)
        except SpoolError as error:
            raise _out_of_resources(error, self._provenance, self._identity) from error

    def commit(self) -> int:
        """Make the instance durable and record it; return the DIMSE status 0000.

        Raises:
            Refusal: A700, it could not be made durable or recorded, and nothing of it is left.

        """
        try:
            recorded = self._store()
        except (SpoolError, LedgerError) as error:
            raise _out_of_resources(error, self._provenance, self._identity) from error
        finally:
            self._writer.discard()
        _log_recorded(recorded)
        self._intake.recorded(recorded)
        return SUCCESS

    def discard(self) -> None:
        """Drop what came so far: the association ended, or the peer broke the protocol."""
        self._writer.discard()

    def _store(self) -> Recorded:
        # All that may fail for reasons other than the disk's comes before the bytes are published.
        head = self._intake.read_head(self._writer, self._identity.transfer_syntax_uid)
        identity = complete(self._identity, head, self._provenance)
        destinations, retrieval_id = self._intake.decide(head, identity, self._provenance)
        content = self._writer.commit()
        arrival = Arrival(identity, self._provenance, content, destinations, self._intake.now(), retrieval_id)
        return record_spooled(self._intake.spool, self._intake.ledger, arrival)


def complete(identity: InstanceIdentity, head: DataSetHead, provenance: Provenance) -> InstanceIdentity:
    """Return `identity` with what the data set says; its SOP Instance UID goes before that of the C-STORE command.

    The data set's is the one under which a source lists the instance and every destination keeps it. Commands get it wrong:
    Orthanc sends half a UID for a data set that encodes its own as UN.
    """
    uid = head.sop_instance_uid or identity.sop_instance_uid
    if head.sop_instance_uid not in ("", identity.sop_instance_uid):
        _log.warning(
            "sop_instance_uid_mismatch",
            association=provenance.association,
            command_uid=identity.sop_instance_uid,
            data_set_uid=head.sop_instance_uid,
        )
    return InstanceIdentity(
        identity.sop_class_uid,
        uid,
        identity.transfer_syntax_uid,
        head.study_instance_uid,
        head.series_instance_uid,
    )


def record_spooled(spool: Spool, ledger: Ledger, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record what was just committed to `spool`, and remove its bytes again where the ledger does not take or need them.

    Raises:
        LedgerError: it was not recorded; the bytes are gone, or adopted at the next start.

    """
    needed = False
    try:
        recorded = ledger.write(lambda connection: record(connection, arrival, again=again, late=late))
        if recorded.rests_on is not None and not _is_there(spool, recorded.rests_on):
            recorded = ledger.write(lambda connection: _record_in_place_of(connection, recorded, again=again))
        needed = recorded.bytes_needed
    finally:
        if not needed:
            remove_unneeded(spool, arrival.content.location)
    return recorded


def _is_there(spool: Spool, content: Content) -> bool:
    """Tell whether the bytes that the ledger relies on really are there, before those at hand are let go."""
    try:
        with spool.open(content):
            return True
    except SpoolError as error:
        _log.error("spool_bytes_missing", location=content.location, reason=str(error))
        return False


def _record_in_place_of(connection: Connection, relied: Recorded, *, again: bool) -> Recorded:
    mark_missing(connection, [relied.instance_id], now=relied.arrival.at)
    return record(connection, relied.arrival, again=again)


def remove_unneeded(spool: Spool, location: str) -> None:
    """Remove bytes that no row refers to; what cannot be removed now is met again at the next start."""
    try:
        spool.remove(location)
    except SpoolError as error:
        _log.warning("spool_file_left", location=location, error=str(error))


def _provenance(association: AssociationInfo, request: StoreRequest) -> Provenance:
    return Provenance(
        calling_ae=association.calling_ae,
        called_ae=association.called_ae,
        address=association.address[:64],
        association=association.id[:32],
        source=association.source,
        move_originator_ae=request.move_originator_ae,
        move_originator_message_id=request.move_originator_message_id,
    )


def _out_of_resources(error: SpoolError | LedgerError, provenance: Provenance, identity: InstanceIdentity) -> Refusal:
    _log.error(
        "instance_refused",
        association=provenance.association,
        sop_instance_uid=identity.sop_instance_uid,
        error=error.__class__.__name__,
        detail=str(error),
    )
    return Refusal(OUT_OF_RESOURCES, str(error))


def _log_recorded(recorded: Recorded) -> None:
    arrival = recorded.arrival
    log = _log.warning if recorded.outcome is ArrivalOutcome.CONFLICT else _log.debug
    log(
        "instance_received",
        association=arrival.provenance.association,
        sop_instance_uid=arrival.identity.sop_instance_uid,
        bytes=arrival.content.length,
        outcome=recorded.outcome.value,
        destinations=len(arrival.destinations),
    )
