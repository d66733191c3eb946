"""Places that hold what a test says, and count what they are asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from gateway.archives.places import SeriesHeld, StudyHeld
from gateway.core.errors import DimseFailed, GatewayError


@dataclass
class Shelf:
    """A place: study to series to SOP Instance UIDs. It fails where it is `down`, and refuses to answer about studies."""

    name: str
    held: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    counts: bool = True
    modality: str = "CT"
    dates: dict[str, str] = field(default_factory=dict)
    down: GatewayError | None = None
    refuses: set[str] = field(default_factory=set)
    refusal: GatewayError = field(default_factory=lambda: DimseFailed("C-FIND", 0xC001))
    cap: int | None = None
    """Maximum number of instances that it lists of a series."""

    doubtful: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    closed: int = 0

    def put(self, study: str, series: str, *numbers: int) -> None:
        """Add instances to a series."""
        self.held.setdefault(study, {}).setdefault(series, set()).update(f"{series}.{number}" for number in numbers)

    def studies(self, keys: Mapping[str, str]) -> dict[str, StudyHeld]:
        self._ask("studies")
        return {study: self._study(study, series) for study, series in self.held.items()}

    def series(self, study: str) -> dict[str, SeriesHeld]:
        self._ask(f"series {study}")
        if study in self.refuses:
            raise self.refusal
        held = self.held.get(study, {})
        return {uid: SeriesHeld(uid, len(some) if self.counts else None, self.modality) for uid, some in held.items()}

    def instances(self, study: str, series: str) -> set[str]:
        self._ask(f"instances {series}")
        return set(sorted(self.holdings(study, series))[: self.cap])

    def holdings(self, study: str, series: str) -> set[str]:
        """Return the instances that it has of a series, listed or not."""
        return set(self.held.get(study, {}).get(series, ()))

    def holds(self, study: str, series: str, instances: Collection[str], listed: Collection[str] = ()) -> set[str]:
        self._ask(f"holds {series}")
        return set(instances) & self.holdings(study, series)

    def doubts(self) -> tuple[str, ...]:
        return self.doubtful

    def remarks(self) -> tuple[str, ...]:
        return (f"{self.name} was asked",)

    def close(self) -> None:
        self.closed += 1

    def questions(self, about: str = "") -> list[str]:
        """Return the questions since the last call, other than for the list of studies."""
        asked, self.asked = [one for one in self.asked if one.startswith(about) and one != "studies"], []
        return asked

    def _study(self, study: str, series: Mapping[str, set[str]]) -> StudyHeld:
        count = sum(map(len, series.values())) if self.counts else None
        return StudyHeld(study, len(series), count, self.dates.get(study, "20240305"), "120000")

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if self.down is not None:
            raise self.down
