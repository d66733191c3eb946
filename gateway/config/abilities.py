"""The abilities of a source or destination, whatever its kind. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.settings import DicomDestination, Entity, RestTable, TlsTable

Way = Literal["find", "dicomweb", "rest", "ledger", "folder"]
"""The way in which a source or destination is asked what it holds; `ledger` does not ask it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """The abilities of a source or destination, and by what it has them; None, False or 0 where it has not.

    The table of a kind fills it in, and nothing else knows the kind but the places that build for it (`delivery.build`,
    `archives.places`): whoever wants something of a source or destination asks `table.can`.
    """

    best: Way
    """The best way to ask it what it holds."""

    ask: Way | None = None
    """The way that the configuration chooses in place of `best`."""

    verify: str = "status"
    """The way in which it is proved that it has what was delivered, in the configuration's words."""

    send: bool = False
    """It sends to us: a source."""

    store: int = 0
    """It is delivered to, by so many sessions at a time: a destination."""

    call: Entity | None = None
    """It is an application entity."""

    find: Entity | None = None
    """It can be asked by C-FIND."""

    commit: Entity | None = None
    """It is asked for storage commitment, and reports by calling us (PS3.4 §J)."""

    confirm: DicomDestination | None = None
    """It is asked, by associations, for the proof of what it answered."""

    rest: RestTable | None = None
    """It is an Orthanc with a REST API."""

    dicomweb: RestTable | None = None
    """It is a DICOMweb service."""

    tls: TlsTable | None = None
    """It is called over TLS."""

    folder: Path | None = None
    """Its instances are files here, which we read and write."""

    max_used: float | None = None
    """A migration waits while a larger share of the file system of `folder` is used, from 0 to 1."""

    max_stored_bytes: int | None = None
    """A migration waits while `rest` says that more is stored."""

    @property
    def listing(self) -> Way:
        """The way in which it is asked what it holds."""
        return self.ask or self.best

    @property
    def prove(self) -> bool:
        """Whether a delivery is proved by more than the status that it was answered with."""
        return self.verify != "status"

    @property
    def digest(self) -> bool:
        """Whether what it stores is compared with what was delivered."""
        return self.verify == "digest"
