"""The Storage SCP's service: a C-STORE request becomes a durable, recorded instance, or a refusal (PS3.4 Annex B, PS3.7 §9.1.1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from gateway.domain import Attributes, Provenance
from gateway.ledger import Ledger
from gateway.ledger.instances import Recorded
from gateway.spool import Spool

Route = Callable[[Attributes], Sequence[str]]
"""Names the destinations of an instance; pure."""

Correlate = Callable[[Provenance, str], int | None]
"""Names the retrieval that the SOP Instance UID of a C-STORE is counted to; None is unsolicited. Thread-safe."""


class Sender(Protocol):
    """What intake needs to know of an association."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def calling_ae(self) -> str: ...  # noqa: D102
    @property
    def called_ae(self) -> str: ...  # noqa: D102
    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str | None: ...  # noqa: D102


class StoreCommand(Protocol):
    """What intake needs to know of a C-STORE-RQ (PS3.7 §9.3.1.1)."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def transfer_syntax_uid(self) -> str: ...  # noqa: D102
    @property
    def move_originator_ae(self) -> str | None: ...  # noqa: D102
    @property
    def move_originator_message_id(self) -> int | None: ...  # noqa: D102


class StorageReception:
    """One instance on its way in. Ends with `commit` or `discard`; both may be called on any exception's path."""

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes.

        Raises:
            Refusal: A700, they cannot be kept.

        """
        raise NotImplementedError

    def commit(self) -> int:
        """Make the instance durable and record it; return the DIMSE status 0000.

        Raises:
            Refusal: A700, it could not be made durable or recorded, and nothing of it is left.

        """
        raise NotImplementedError

    def discard(self) -> None:
        """Drop what came so far: the association ended, or the peer broke the protocol."""
        raise NotImplementedError


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

    def receive(self, association: Sender, request: StoreCommand) -> StorageReception:
        """Begin one instance.

        Raises:
            Refusal: 0117 or 0122 for a UID that is none, A700 where there is no room.

        """
        raise NotImplementedError
