"""The studies to retrieve, and the job on whose behalf. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.core.domain import Priority, is_uid
from gateway.core.errors import UsageError
from gateway.core.single_values import SingleValue

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


class NamesStudies(Protocol):
    """A request that names studies one by one, by what `KEYWORDS` has."""

    @property
    def study_uids(self) -> tuple[str, ...]:
        """Study Instance UIDs."""

    @property
    def accession_numbers(self) -> tuple[str, ...]:
        """Accession numbers."""

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """Patient ids."""


KEYWORDS = {"study_uids": "StudyInstanceUID", "accession_numbers": "AccessionNumber", "patient_ids": "PatientID"}


def named_keys(request: NamesStudies) -> tuple[Mapping[str, str], ...]:
    """Return the matching keys of a C-FIND at STUDY level for each value that `request` names, without repetition."""
    return tuple({KEYWORDS[name]: SingleValue(value)} for name in KEYWORDS for value in dict.fromkeys(getattr(request, name)))


def check_named(request: NamesStudies) -> None:
    """Make sure that each value is one that its attribute can have (PS3.5 §6.2), and can be asked for by itself.

    ``*`` and ``?`` may be part of it: they are taken as they stand (`gateway.core.single_values.SingleValue`).

    Raises:
        UsageError: one is not; what may be a patient's is named by its place.
    """
    wrong = [uid for uid in request.study_uids if not is_uid(uid)]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
        raise UsageError(f"not a Study Instance UID: {wrong[0][:80]!r}{more}")
    for number, value in enumerate((*request.accession_numbers, *request.patient_ids), 1):
        if not value.strip("*? "):
            raise UsageError(f"accession number or patient id {number} is empty: that would match every study")
        if "\\" in value:
            raise UsageError(
                f"accession number or patient id {number} holds a backslash, which separates values: name each by itself"
            )
