"""The questions that every place answers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.core.errors import GatewayError


@dataclass(frozen=True)
class StudyHeld:
    """A study that a place holds; what the place does not tell is None or empty.

    `series` and `instances` are its own counts. Date and time are in DICOM's forms (PS3.5 §6.2).
    """

    study_instance_uid: str
    series: int | None = None
    instances: int | None = None
    study_date: str = ""
    study_time: str = ""
    modalities: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesHeld:
    """A series that a place holds; what the place does not tell is None or empty."""

    series_instance_uid: str
    instances: int | None = None
    modality: str = ""
    description: str = ""


class Unheld(GatewayError):
    """A place does not hold an instance, or not any more, or has no way to give it."""


class Place(Protocol):
    """Somewhere studies are held. Thread-safe; every method blocks.

    Methods raise AssociationError or WebServiceError where the place cannot be asked, DestinationUnavailable where its folder is
    gone, LedgerError where the ledger cannot be read, and UsageError for a key that is no keyword to match by. UIDs are only ever
    those that are UIDs.
    """

    name: str

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """Return the studies that match `keys`, by UID: C-FIND keys, keyword to value, with ranges, wildcards and lists.

        None at all is everything that the place holds.
        """

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """Return the series of a study, by UID; none where the study is not there."""

    def instances(self, study: str, series: str) -> set[str]:
        """Return the SOP Instance UIDs of a series."""

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        """Return which of these SOP Instance UIDs of a series it holds, asked for by UID: what a list may leave out.

        `listed` are some of the series that it does list.
        """

    @property
    def gives_files(self) -> bool:
        """Tell whether `fetch` can work: what is only reached by C-FIND gives no files."""

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """Write an instance's Part 10 file to `to` (0600).

        Raises:
            Unheld: it is not there.

        """

    def remarks(self) -> tuple[str, ...]:
        """Return what is to be known of the answers given so far: that an archive had to be asked in parts, for instance."""

    def doubts(self) -> tuple[str, ...]:
        """Return why the answers given so far may not be all; nothing where they are."""

    def close(self) -> None:
        """End what is open; from any thread, and what is being asked then ends with an error."""


class Complete(Place):
    """A place whose lists are complete: they answer whatever else is asked. Has nothing open."""

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        """As `Place.holds`."""
        return set(instances) & self.instances(study, series)

    def remarks(self) -> tuple[str, ...]:
        """As `Place.remarks`: nothing."""
        return ()

    def doubts(self) -> tuple[str, ...]:
        """As `Place.doubts`: nothing."""
        return ()

    def close(self) -> None:
        """Nothing is open."""
