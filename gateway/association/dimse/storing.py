"""C-STORE requests of one association on their way to a storage service, whichever side asked for the association (PS3.4 §B.2).

Every exception of the service becomes a status: the association goes on. Runs on the association's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
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

_FAILED = "reception_failed"


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
        requested: Callable[[StoreRequest], StoreRequest] | None = None,
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
        taking = _Taking(self._log)
        try:
            taking.reception = self._receive(context, message)
        except Exception as error:  # noqa: BLE001 - the boundary to services
            taking.failed(error)
        try:
            if message.has_data_set:
                self.tally.bytes += self._receiver.receive_data_set(message, taking.write)
        except BaseException:
            taking.discard()
            raise
        status = taking.end()
        # Warnings (PS3.4 Table B.2-1) are stored too.
        if status == SUCCESS or status >> 12 == 0xB:
            self.tally.stored += 1
        else:
            self.tally.refused += 1
            self._tell_refused(message.command, status)
        return status

    def log_tally(self) -> None:
        """Tell the log what came, for an association that has no last line of its own."""
        tally = self.tally
        self._log.debug("instances_fetched", stored=tally.stored, refused=tally.refused, bytes=tally.bytes)

    def _receive(self, context: AcceptedContext, message: Message) -> Reception:
        request = store_request(message.command, context.transfer_syntax, has_data_set=message.has_data_set)
        return self._storage.receive(self._info, request if self._requested is None else self._requested(request))

    def _tell_refused(self, command: CommandSet, status: int) -> None:
        """Note that an instance is not taken; the UID as far as it is printable."""
        metrics.REFUSED.add(status=f"{status:04X}")
        uid = ascii(command.get("AffectedSOPInstanceUID", ""))[1:65]
        # Why there are no resources is the service's to tell, and it may be so for every instance that comes.
        tell = self._log.debug if status == OUT_OF_RESOURCES else self._log.warning
        tell("instance_refused", sop_instance_uid=uid, status=f"{status:04X}")


class _Taking:
    """One instance on its way into a reception: nothing raises while the data set comes, so that the message is read to its end."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self.reception: Reception | None = None
        self._log = log
        self._status = PROCESSING_FAILURE

    def write(self, fragments: Sequence[memoryview]) -> None:
        if self.reception is not None:
            try:
                self.reception.write(fragments)
            except Exception as error:  # noqa: BLE001 - the boundary to services
                self.failed(error)
                self.discard()

    def end(self) -> int:
        """Commit what came, or not; return the status."""
        if self.reception is not None:
            try:
                return self.reception.commit()
            except Exception as error:  # noqa: BLE001 - the boundary to services
                self.failed(error)
        return self._status

    def discard(self) -> None:
        reception, self.reception = self.reception, None
        if reception is not None:
            with suppress(Refusal):
                attempt(self._log, _FAILED, reception.discard)

    def failed(self, error: Exception) -> None:
        """Have the instance refused for what its service raised."""
        self._status = refusal_of(self._log, _FAILED, error).status


def attempt(log: FilteringBoundLogger, event: str, work: Callable[[], T]) -> T:
    """Return what a service's `work` returns; whatever it raises becomes a Refusal (`refusal_of`)."""
    try:
        return work()
    except Exception as error:
        raise refusal_of(log, event, error) from error


def refusal_of(log: FilteringBoundLogger, event: str, error: Exception) -> Refusal:
    """Return the refusal that a service raised, or that follows from what it must not raise, which is logged.

    The boundary to services: nothing of theirs may reach the peer. The text of a foreign exception may quote a data set, so the log
    gets its type and where it came from.
    """
    if isinstance(error, Refusal):
        return error
    log.error(event, error=type(error).__name__, at=origin(error))
    return Refusal(PROCESSING_FAILURE, "the service failed")


def origin(error: BaseException) -> str:
    """Return the file, line and function in which `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename}:{trace.tb_lineno} {code.co_name}"
