"""The acceptor of associations: Verification and Storage SCP, and Storage Commitment reports (PS3.8 §9.2, PS3.4 §A, §B, §J)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.association.services import (
    Admission,
    Admitted,
    AssociationInfo,
    CommitmentService,
    Limits,
    ListenerSpec,
    Reception,
    StorageService,
    StoreRequest,
)

__all__ = [
    "Acceptor",
    "Admission",
    "Admitted",
    "AssociationInfo",
    "CommitmentService",
    "Limits",
    "ListenerSpec",
    "Reception",
    "StorageService",
    "StoreRequest",
]


class Acceptor:
    """Listens, and serves each association on a thread of its own. `start` once, `close` in the end; both from any thread."""

    def __init__(
        self,
        listeners: Sequence[ListenerSpec],
        *,
        admission: Admission,
        storage: StorageService,
        commitment: CommitmentService,
        limits: Limits | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Bind and listen. Raises OSError with what could not be bound, in which case nothing listens."""
        raise NotImplementedError

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Where it listens, (address, port) in the order of the listeners."""
        raise NotImplementedError

    @property
    def association_count(self) -> int:
        """How many associations are open now."""
        raise NotImplementedError

    def stop_accepting(self) -> None:
        """Close the listening sockets; open associations go on."""
        raise NotImplementedError

    def drain(self, timeout_s: float) -> bool:
        """Take no new associations, let each finish its message within `timeout_s`, abort the rest; tell whether none was."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening, abort what is open, and wait for every thread."""
        raise NotImplementedError
