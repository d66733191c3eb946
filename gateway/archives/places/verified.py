"""A place that is not asked: what our own ledger says is verified at a destination.

The ledger knows UIDs only, no dates and no patients, and forgets after ``[spool] history_days``. So it lists studies where they are
named by UID, and none by other keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from gateway.archives.places.place import Complete, SeriesHeld, StudyHeld, Unheld
from gateway.ledger import Ledger
from gateway.ledger.deliveries import overview


class VerifiedPlace(Complete):
    """A `Place` that is what the ledger has as verified at the destination `name`."""

    gives_files = False

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self._ledger = ledger

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        """As `Place.studies`, for studies that `keys` name by UID alone."""
        if set(keys) != {"StudyInstanceUID"}:
            return {}
        found = {}
        for study in keys["StudyInstanceUID"].split("\\"):
            if series := self._verified(study):
                found[study] = StudyHeld(study, len(series), sum(map(len, series.values())))
        return found

    def series(self, study: str) -> dict[str, SeriesHeld]:
        """As `Place.series`."""
        return {uid: SeriesHeld(uid, len(instances)) for uid, instances in self._verified(study).items()}

    def instances(self, study: str, series: str) -> set[str]:
        """As `Place.instances`."""
        return self._verified(study).get(series, set())

    def fetch(self, study: str, series: str, instance: str, to: Path) -> None:
        """Raise Unheld: the ledger has no bytes."""
        raise Unheld("the ledger knows what is verified, and has no files of it")

    def remarks(self) -> tuple[str, ...]:
        """As `Place.remarks`."""
        return (f"{self.name} was not asked: it is taken to hold what was verified there",)

    def _verified(self, study: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        with self._ledger.read() as connection:
            for series, instance in overview.verified_of_study(connection, self.name, study):
                found[series].add(instance)
        return found
