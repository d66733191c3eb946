"""The studies to retrieve, and the job on whose behalf. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.domain import Priority
from gateway.core.errors import UsageError

if TYPE_CHECKING:
    from gateway.ledger.jobs.retrievals import JobKind


@dataclass(frozen=True)
class Wanted:
    """One study to retrieve: all of it, some of its series, or some of its instances.

    `study_instance_uid` is empty for a study that is listed under something that is no UID: it cannot be asked for.
    `instance_count` is what the source counts in the study, where it said so. `series` and `instances` name by UID what alone is
    wanted of it; None is everything, and what the source does not list of them is not missed.
    """

    study_instance_uid: str
    instance_count: int | None = None
    series: frozenset[str] | None = None
    instances: frozenset[str] | None = None

    @property
    def partial(self) -> bool:
        """Tell whether only a part of the study is wanted."""
        return self.series is not None or self.instances is not None


@dataclass(frozen=True)
class JobSpec:
    """The job that studies are retrieved for: the same `fingerprint` given again carries on where the job stopped.

    `criteria` is canonical JSON for people and recovery. `destinations` are names of ``[destinations]`` to which everything that
    comes goes, whatever the routes say; empty is where the routes lead. With `reopen` the same job is carried on also when it had
    come to its end, so that what was complete stays so.
    """

    kind: JobKind
    fingerprint: str
    criteria: str
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    reopen: bool = False

    @property
    def directed(self) -> tuple[str, ...] | None:
        """The destinations of everything, or None where the routes lead."""
        return self.destinations or None


def check_single(values: Sequence[str]) -> None:
    """Make sure that each of `values` is one that an attribute can have (PS3.5 §6.2), and can be asked for by itself.

    ``*`` and ``?`` may be part of it: they are taken as they stand (`gateway.core.single_values.SingleValue`).

    Raises:
        UsageError: one is not; it is named by its place, for it may be a patient's.
    """
    for number, value in enumerate(values, 1):
        if not value.strip("*? "):
            raise UsageError(f"accession number or patient id {number} is empty: that would match every study")
        if "\\" in value:
            raise UsageError(
                f"accession number or patient id {number} holds a backslash, which separates values: name each by itself"
            )
