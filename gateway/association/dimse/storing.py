"""C-STORE requests of one association on their way to a storage service, whichever side asked for the association (PS3.4 §B.2).

Every exception of the service becomes a status: the association goes on. Runs on the association's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from gateway.association.dimse.answers import store_request
from gateway.association.dimse.command import CommandSet
from gateway.association.dimse.message import Message, Receiver
from gateway.association.dimse.services import AssociationInfo, Reception, StorageService, StoreRequest
from gateway.association.dimse.statuses import OUT_OF_RESOURCES, PROCESSING_FAILURE, SUCCESS
from gateway.association.upper.contexts import AcceptedContext
from gateway.core import metrics
from gateway.core.errors import Refusal
from gateway.core.log import get_logger

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")


class Tally:
    """The counts of what an association brought, for its last line in the log."""

    def __init__(self) -> None:
        self.stored = 0
        self.refused = 0
        self.bytes = 0


class Storing:
    """Takes the instances that come on one association; `tally` counts them.

    `requested` may say more of a request than its command does: a C-GET's sub-operations name no originator.
    """

    def __init__(
        self,
        info: AssociationInfo,
        receiver: Receiver,
        storage: StorageService,
        *,
        requested: Callable[[StoreRequest], StoreRequest] = lambda request: request,
        tally: Tally | None = None,
    ) -> None:
        self.tally = Tally() if tally is None else tally
        self._info = info
        self._receiver = receiver
        self._storage = storage
        self._requested = requested
        self._log: FilteringBoundLogger = get_logger().bind(association=info.id)

    def store(self, context: AcceptedContext, message: Message) -> int:
        """Take one instance in; the data set is read to its end whatever becomes of it. Return the status to answer."""
        taker = _Taker(self, message.command)
        try:
            taker.begin(context, message)
            if message.has_data_set:
                self.tally.bytes += self._receiver.receive_data_set(message, taker.write)
        except BaseException:
            taker.discard()
            raise
        status = taker.end()
        self._count(status)
        return status

    def receive(self, context: AcceptedContext, message: Message) -> Reception:
        """Ask the storage service for a reception of the instance in `message`. Raises Refusal."""
        request = self._requested(store_request(message.command, context.transfer_syntax, has_data_set=message.has_data_set))
        return self.attempt(lambda: self._storage.receive(self._info, request))

    def attempt(self, work: Callable[[], T]) -> T:
        """Return what the storage service's `work` returns; whatever it raises becomes a Refusal."""
        return attempt(self._log, "reception_failed", work)

    def refused(self, command: CommandSet, refusal: Refusal) -> None:
        """Note that an instance is not taken; the UID as far as it is printable."""
        metrics.REFUSED.add(status=f"{refusal.status:04X}")
        uid = ascii(command.get("AffectedSOPInstanceUID", ""))[1:65]
        # Why there are no resources is the service's to tell, and it may be so for every instance that comes.
        tell = self._log.debug if refusal.status == OUT_OF_RESOURCES else self._log.warning
        tell("instance_refused", sop_instance_uid=uid, status=f"{refusal.status:04X}")

    def log_tally(self) -> None:
        """Tell the log what came, for an association that has no last line of its own."""
        tally = self.tally
        self._log.debug("instances_fetched", stored=tally.stored, refused=tally.refused, bytes=tally.bytes)

    def _count(self, status: int) -> None:
        # Warnings (PS3.4 Table B.2-1) are stored too.
        if status == SUCCESS or status >> 12 == 0xB:
            self.tally.stored += 1
        else:
            self.tally.refused += 1


class _Taker:
    """One instance on its way into a reception: never raises while the data set comes, so that the message is read to its end."""

    def __init__(self, storing: Storing, command: CommandSet) -> None:
        self._storing = storing
        self._command = command
        self._reception: Reception | None = None
        self._refusal: Refusal | None = None

    def begin(self, context: AcceptedContext, message: Message) -> None:
        try:
            self._reception = self._storing.receive(context, message)
        except Refusal as refusal:
            self._refusal = refusal

    def write(self, fragments: Sequence[memoryview]) -> None:
        reception = self._reception
        if reception is None:
            return
        try:
            self._storing.attempt(lambda: reception.write(fragments))
        except Refusal as refusal:
            self._refusal = refusal
            self.discard()

    def end(self) -> int:
        """Commit what came, or not; return the status."""
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                return self._storing.attempt(reception.commit)
            except Refusal as refusal:
                self._refusal = refusal
        refused = self._refusal or Refusal(PROCESSING_FAILURE, "nothing was received")
        self._storing.refused(self._command, refused)
        return refused.status

    def discard(self) -> None:
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                self._storing.attempt(reception.discard)
            except Refusal:
                return


def attempt(log: FilteringBoundLogger, event: str, work: Callable[[], T]) -> T:
    """Return what a service's `work` returns; whatever it raises becomes a Refusal, and what it must not raise is logged.

    The text of a foreign exception may quote a data set, so the log gets its type and where it came from.
    """
    try:
        return work()
    except Refusal:
        raise
    except Exception as error:
        # The boundary to services: nothing of theirs may reach the peer.
        log.error(event, error=type(error).__name__, at=origin(error))
        raise Refusal(PROCESSING_FAILURE, "the service failed") from error


def origin(error: BaseException) -> str:
    """Return the file, line and function in which `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} {code.co_name}"
