"""An association that we request (PS3.8 §9.2): C-ECHO, C-FIND, C-MOVE, C-STORE and Storage Commitment as SCU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset

from gateway.association.commitment import CommitmentReport, FailedReference, InstanceReference
from gateway.association.contexts import STUDY_ROOT_FIND, STUDY_ROOT_MOVE, AcceptedContext, ProposedContext
from gateway.association.requests import (
    DEFAULT_DEADLINES,
    ByteSource,
    Deadlines,
    RemoteAE,
    StoreResponse,
    SubOperations,
    next_message_id,
)

__all__ = [
    "ByteSource",
    "CommitmentReport",
    "Deadlines",
    "FailedReference",
    "InstanceReference",
    "RemoteAE",
    "Requestor",
    "StoreResponse",
    "SubOperations",
    "associate",
    "next_message_id",
]


def associate(
    remote: RemoteAE,
    calling_ae: str,
    contexts: Sequence[ProposedContext],
    *,
    deadlines: Deadlines = DEFAULT_DEADLINES,
    max_pdu_bytes: int = 131072,
) -> Requestor:
    """Associate with `remote` and return the open association.

    Raises:
        PeerUnreachable, TlsFailed, AssociationRejected, AssociationAborted, PeerTimeout, ProtocolError: see `gateway.errors`.
        NoPresentationContext: the peer accepted none of `contexts`; the association was released.
    """
    raise NotImplementedError


class Requestor:
    """An open association; one thread at a time uses it, `kill` may come from any.

    As a context manager it releases on a clean exit and aborts on an error.
    """

    remote: RemoteAE
    accepted: tuple[AcceptedContext, ...]
    refused: tuple[ProposedContext, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        raise NotImplementedError

    def context_for(self, sop_class: str, transfer_syntax: str | None = None) -> AcceptedContext | None:
        """Return the accepted context of `sop_class` in `transfer_syntax` (in any where that is None), or None."""
        raise NotImplementedError

    def echo(self) -> None:
        """Ask with C-ECHO whether the peer is there (PS3.7 §9.3.5).

        Raises:
            DimseFailed: the status is not 0000.
        """
        raise NotImplementedError

    def find(self, identifier: Dataset, *, model: str = STUDY_ROOT_FIND) -> Iterator[Dataset]:
        """Yield the matches of `identifier` as they come (PS3.4 §C.4.1).

        Closing the iterator early cancels the operation and waits for its end.

        Raises:
            DimseFailed: the final status is a failure.
        """
        raise NotImplementedError

    def move(
        self,
        identifier: Dataset,
        *,
        destination_ae: str,
        message_id: int,
        model: str = STUDY_ROOT_MOVE,
        response_s: float | None = None,
    ) -> Iterator[SubOperations]:
        """Ask for `identifier` to be sent to `destination_ae`; yield each response, the final one last (PS3.4 §C.4.2).

        No status raises: the caller judges by what arrives. Without `response_s` the wait for each response has no end but `kill`.
        """
        raise NotImplementedError

    def cancel(self, message_id: int) -> None:
        """Ask the peer to stop C-FIND or C-MOVE `message_id` (PS3.7 §9.3.2.3); its final response still comes."""
        raise NotImplementedError

    def store(
        self,
        context: AcceptedContext,
        sop_instance_uid: str,
        source: ByteSource,
        *,
        move_originator_ae: str | None = None,
        move_originator_message_id: int | None = None,
    ) -> StoreResponse:
        """Send one instance and return the peer's answer, whatever its status (PS3.4 §B.2).

        Raises:
            AssociationAborted, PeerTimeout, ProtocolError: it is unknown whether the peer has the instance.
            OSError: the source could not be read; the association was aborted.
        """
        raise NotImplementedError

    def request_commitment(self, transaction_uid: str, references: Iterable[InstanceReference]) -> None:
        """Ask the peer to commit to keep `references` (N-ACTION, PS3.4 §J.3.2). The report comes by `next_event` or anew.

        Raises:
            DimseFailed: the peer refuses the request.
        """
        raise NotImplementedError

    def next_event(self, timeout_s: float) -> CommitmentReport | None:
        """Wait `timeout_s` for a commitment report on this association, answer it 0000 and return it; None when none came."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the association in order (PS3.8 §9.2), or abort it when the peer does not answer in time. Never raises."""
        raise NotImplementedError

    def abort(self) -> None:
        """Abort the association (PS3.8 §9.3.8) without waiting. Never raises."""
        raise NotImplementedError

    def kill(self) -> None:
        """Wake the thread that uses the association with `AssociationAborted`, at once. From any thread. Never raises."""
        raise NotImplementedError
