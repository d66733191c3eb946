"""The Storage SCP's service: a C-STORE request becomes a durable instance, or a refusal (PS3.4 §B.2, PS3.7 §9.1.1).

0000 is answered once the spool has made the instance durable and its arrival is with the recorder, which has the ledger
follow. Runs on association threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from gateway.association.dimse.services import AssociationInfo, StoreRequest
from gateway.association.dimse.statuses import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS
from gateway.core.domain import Attributes, Content, InstanceIdentity, Mode, Provenance, Purpose
from gateway.core.errors import GatewayStopping, LedgerUnavailable, Refusal, SpoolError, SpoolIOError
from gateway.core.log import get_logger
from gateway.core.repeats import Repeats
from gateway.dicom.head import DataSetHead, peek_head, read_head
from gateway.intake.judging import BEGINNING, Judging, note
from gateway.intake.oddities import Oddities
from gateway.intake.recorder import Recorder
from gateway.ledger.received.instances import Arrival
from gateway.spool import Spool, SpoolWriter

_log = get_logger()

Route = Callable[[Attributes], Mapping[str, Mode | None]]
"""Names the destinations of an instance, each with the transfer syntax that a route asks for there, if one does; pure."""

Correlate = Callable[[Provenance, str], Purpose | None]
"""Tells what an instance, by its SOP Instance UID, came for; None is unsolicited. Thread-safe."""

SEND_ASSOCIATION = "send"
LOCAL_ADDRESS = "local"
"""Provenance of what ``send`` takes in: no association brought it."""


class StorageIntake:
    """Receives instances for a Storage SCP. Thread-safe."""

    def __init__(
        self,
        spool: Spool,
        recorder: Recorder,
        *,
        route: Route,
        keywords: Collection[str] = (),
        correlate: Correlate = lambda _provenance, _uid: None,
        judging: Judging | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take instances into `spool`, and tell `recorder` of them.

        `judging` holds them against their transfer syntaxes. `keywords` are the DICOM keywords that `route` asks for. `clock` gives
        UTC seconds since the epoch.
        """
        self.recorder = recorder
        self.refused = Repeats()
        self._spool = spool
        self._route = route
        self._keywords = frozenset(keywords)
        self._correlate = correlate
        self.judging = judging or Judging()
        self._clock = clock
        self.oddities = Oddities()

    def receive(self, association: AssociationInfo, request: StoreRequest) -> StorageReception:
        """Begin one instance.

        Raises:
            Refusal: A700 where there is no room or the ledger is too far behind.

        """
        identity = InstanceIdentity(request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid)
        provenance = _provenance(association, request.move_originator_ae, request.move_originator_message_id)
        try:
            self.recorder.check()
            writer = self._spool.create(identity, provenance)
        except (SpoolError, LedgerUnavailable) as error:
            raise self.out_of_resources(error, provenance, identity) from error
        return StorageReception(self, writer, identity, provenance)

    def decide(
        self, read: DataSetHead, identity: InstanceIdentity, provenance: Provenance
    ) -> tuple[Mapping[str, Mode | None], Purpose | None]:
        """Return where the routes lead an instance, and what it came for."""
        return self._route(read.attributes(provenance)), self._correlate(provenance, identity.sop_instance_uid)

    def peek_head(self, beginning: memoryview, transfer_syntax_uid: str) -> DataSetHead | None:
        """Return what routing asks of a data set that begins like this, where that is enough to tell."""
        return peek_head(beginning, transfer_syntax_uid, self._keywords)

    def read_head(self, writer: SpoolWriter, transfer_syntax_uid: str) -> DataSetHead:
        """Return what routing asks of the data set that `writer` holds."""
        return read_head(writer.read, transfer_syntax_uid, self._keywords)

    def out_of_resources(
        self, error: SpoolError | LedgerUnavailable, provenance: Provenance, identity: InstanceIdentity
    ) -> Refusal:
        """Return the refusal A700 for `error`; the log has the first of its kind, then a line a minute with their number."""
        if count := self.refused.due(error.__class__.__name__):
            _log.error(
                "instances_refused",
                count=count,
                status=f"{OUT_OF_RESOURCES:04X}",
                association=provenance.association,
                sop_instance_uid=identity.sop_instance_uid,
                error=error.__class__.__name__,
                detail=str(error),
            )
        return Refusal(OUT_OF_RESOURCES, str(error))

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
        self._head: DataSetHead | None = None
        self._beginning = b""

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes.

        Raises:
            Refusal: A700, they cannot be kept.

        """
        if not self._writer.length:
            # In the receive buffer, before the memory is reused: reading back what was written costs more.
            self._head = self._intake.peek_head(fragments[0], self._identity.transfer_syntax_uid)
        if len(self._beginning) < BEGINNING:
            self._keep(fragments)
        try:
            self._writer.write(fragments)
        except SpoolError as error:
            raise self._intake.out_of_resources(error, self._provenance, self._identity) from error

    def commit(self) -> int:
        """Make the instance durable and have it recorded; return the DIMSE status 0000.

        Raises:
            Refusal: A700, it could not be made durable, C000, there is no data set (PS3.4 §B.2.3); nothing of it is left.

        """
        if not self._writer.length:
            self._writer.discard()
            raise Refusal(CANNOT_UNDERSTAND, "a data set without bytes")
        try:
            arrival = self._store()
        except SpoolError as error:
            raise self._intake.out_of_resources(error, self._provenance, self._identity) from error
        finally:
            self._writer.discard()
        self._intake.recorder.put(arrival)
        return SUCCESS

    def discard(self) -> None:
        """Drop what came so far: the association ended, or the peer broke the protocol."""
        self._writer.discard()

    def _keep(self, fragments: Sequence[memoryview]) -> None:
        """Keep how the data set begins, until it is held against its transfer syntax."""
        for fragment in fragments:
            self._beginning += fragment[: BEGINNING - len(self._beginning)]

    def _judged(self, identity: InstanceIdentity) -> tuple[InstanceIdentity, str]:
        """Return `identity` in the transfer syntax that it is in, and why it is in none that can be told."""
        try:
            judgement = self._intake.judging.of_writer(self._writer, identity.transfer_syntax_uid, self._beginning)
        except GatewayStopping as error:
            raise Refusal(OUT_OF_RESOURCES, "the gateway stops") from error
        except OSError as error:
            raise SpoolIOError(f"an instance cannot be read back: {error.strerror}") from error
        if judgement.transfer_syntax_uid == identity.transfer_syntax_uid and not judgement.unfit:
            return identity, ""
        note(identity, judgement, self._provenance.association)
        return replace(identity, transfer_syntax_uid=judgement.transfer_syntax_uid), judgement.unfit

    def _store(self) -> Arrival:
        # All that may fail for reasons other than the disk's comes before the bytes are published.
        head = self._head
        if head is None or head.behind not in (None, self._writer.length):
            head = self._intake.read_head(self._writer, self._identity.transfer_syntax_uid)
        identity = complete(self._identity, head, self._provenance)
        self._intake.oddities.note(identity, head.unread, self._provenance.association)
        identity, unfit = self._judged(identity)
        routed, purpose = self._intake.decide(head, identity, self._provenance)
        content = self._writer.commit()
        came = arrival(identity, self._provenance, content, routed=routed, purpose=purpose, at=self._intake.now())
        return replace(came, unfit=unfit) if unfit else came


def arrival(
    identity: InstanceIdentity,
    provenance: Provenance,
    content: Content,
    *,
    routed: Mapping[str, Mode | None],
    purpose: Purpose | None,
    at: float,
) -> Arrival:
    """Return what is to be recorded of an instance, given where the routes lead and what it came for.

    Instances that a retrieval wants at certain destinations go to those; what routes ask for there holds all the same.
    """
    if purpose is None:
        return Arrival(identity, provenance, content, tuple(routed), at, modes=asked(routed))
    names = tuple(routed) if purpose.destinations is None else purpose.destinations
    modes = asked({name: routed.get(name) for name in names})
    return Arrival(identity, provenance, content, names, at, purpose.retrieval_id, modes, purpose.priority)


def asked(destinations: Mapping[str, Mode | None]) -> Mapping[str, Mode]:
    """Return what routes ask for, of the destinations at which they do."""
    return {name: mode for name, mode in destinations.items() if mode is not None}


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


@lru_cache(maxsize=256)
def _provenance(association: AssociationInfo, move_originator_ae: str | None, move_originator_message_id: int | None) -> Provenance:
    """Return who sends; the same object for the instances of an association, so that others may keep what they make of it."""
    return Provenance(
        calling_ae=association.calling_ae,
        called_ae=association.called_ae,
        address=association.address[:64],
        association=association.id[:32],
        source=association.source,
        move_originator_ae=move_originator_ae,
        move_originator_message_id=move_originator_message_id,
    )
