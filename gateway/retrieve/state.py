"""The state of one study that is retrieved: the one home of its UID sets, from which its progress and verdict are derived.

Each set is kept once, and by whom it is told keeps them apart: the source lists (`expectation`), destinations hold (`skipped`),
associations bring (`received`), the ledger has (`tally`, as of the last comparison). `study` changes the state on trio. Association
threads note arrivals in it meanwhile, through `arrivals.Arrivals`, under whose lock `expect`, `forget` and `note` are called. The
methods that are given a connection run in transactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from gateway.core.domain import Basis, Priority, Purpose, VerdictKind
from gateway.ledger.jobs import retrievals
from gateway.retrieve.events import Progress, StudyPlanned, Verdict
from gateway.retrieve.request import JobSpec
from gateway.retrieve.verdict import Expectation, Sorted, Tally, conflict_notes, judge, sort, tally


@dataclass(eq=False, kw_only=True)
class Watch:
    """The signs of life of what a source was asked for: changed under a lock, read without. Times are in monotonic seconds."""

    nudge: Callable[[], None]
    """Wakes whoever waits for arrivals, from any thread."""
    retrieval_id: int = 0
    """The ledger's number of the retrieval; 0 is none."""
    flowed_at: Callable[[], float] = lambda: 0.0
    """The time when its source last sent anything, be it a part of an instance: known where it has a `max_rate`, else 0.0."""
    arrivals: int = 0
    last_arrival: float = 0.0
    last_new: float = 0.0
    """The time when an instance last came that had not come before."""
    turned_away: str = ""
    """The last caller that was refused meanwhile, in words."""


@dataclass(frozen=True)
class Here:
    """The instances that are here, and how many of them came with other content than was known."""

    came: Sorted
    conflicts: int


@dataclass(eq=False, kw_only=True)
class StudyState(Watch):
    """The retrieval of `study` from `source` on behalf of `spec`."""

    study: str
    source: str
    spec: JobSpec
    expectation: Expectation = field(default_factory=lambda: Expectation(Basis.UIDS, None, {}))
    """The source's list, each of whose instances has to come."""
    skipped: frozenset[str] = frozenset()
    """Listed instances that need not come: the destinations hold them."""
    received: set[str] = field(default_factory=set)
    """The UIDs that arrived. Hints for pace and progress: a lost one costs time, never an instance."""
    present: int = 0
    """The number of those of them that have to come; of all where none are known by UID."""
    bytes: int = 0
    tally: Tally = field(default_factory=lambda: Tally((), 0, (), None))
    """The instances that are missing, unexpected and unfit by the ledger, as of the last comparison."""
    conflicts: int = 0
    stalled: bool = False
    """The source stopped in the middle of an operation."""
    disproved: bool = False
    """The source claimed to have sent more than came, and it was waited for in vain."""

    @property
    def purpose(self) -> Purpose:
        """The purpose of an instance that is counted to it."""
        return Purpose(self.retrieval_id, self.spec.directed, self.spec.priority)

    @property
    def awaited(self) -> int:
        """The number of instances that are listed and have to come."""
        return len(self.expectation.listed) - len(self.skipped)

    def expects(self, sop_instance_uid: str) -> bool:
        """Tell whether an instance is listed and has to come."""
        return sop_instance_uid in self.expectation.listed and sop_instance_uid not in self.skipped

    def expect(self, expectation: Expectation, skipped: Collection[str] = ()) -> None:
        """Set what is listed and which of it is skipped, and count again what of the rest arrived."""
        self.expectation, self.skipped = expectation, frozenset(skipped)
        self._count()

    def note(self, sop_instance_uid: str, size_bytes: int) -> None:
        """Count an arrival."""
        self.arrivals += 1
        if sop_instance_uid not in self.received:
            self.received.add(sop_instance_uid)
            self.bytes += size_bytes
            self.last_new = time.monotonic()
            self.present += not self.awaited or self.expects(sop_instance_uid)

    def forget(self, uids: Collection[str]) -> None:
        """Take instances that came for ones that did not: they were not what was asked for, and are asked for again."""
        self.received.difference_update(uids)
        self._count()

    def _count(self) -> None:
        listed, received = self.expectation.listed.keys(), self.received
        self.present = len(listed & received) - len(self.skipped & received) if self.awaited else len(received)

    def outstanding(self) -> int | None:
        """Return how many instances are still to arrive, also of those that are counted and not listed; None where nobody knows."""
        found = self.expectation
        if not self.awaited and found.count is None:
            return None
        left = self.awaited - self.present if self.awaited else max(0, (found.count or 0) - self.present)
        if left or not found.short:
            return left
        counted = found.counted or 0
        return max(0, counted - len(self.received)) if counted > len(found.listed) else None

    def record(self, connection: Connection) -> Here:
        """Have the ledger know what is expected, in place of what was before; return what of it is here."""
        retrievals.expect(
            connection,
            self.retrieval_id,
            basis=self.expectation.basis,
            expected_count=self.expectation.count,
            listed=self.expectation.listed,
            skipped=self.skipped,
        )
        if self.spec.priority is Priority.HIGH:
            retrievals.hasten(connection, self.retrieval_id, self.spec.priority)
        return self.here(connection)

    def here(self, connection: Connection) -> Here:
        """Return what is here."""
        if self.expectation.basis is Basis.COUNTS:
            came = retrievals.came_of_study(connection, self.retrieval_id, self.study)
        elif self.spec.destinations:
            came = retrievals.came_for(connection, self.retrieval_id, self.spec.destinations)
        else:
            came = retrievals.came(connection, self.retrieval_id)
        return Here(sort(came, self.study, self.expectation), retrievals.conflicts(connection, self.retrieval_id))

    def compare(self, here: Here) -> Tally:
        """Compare what is here with what is expected."""
        self.conflicts = here.conflicts
        self.tally = tally(self.expectation, here.came.fit, self.skipped, here.came.unfit)
        return self.tally

    def planned(self) -> StudyPlanned:
        """Return the news that it was listed."""
        basis, count = self.expectation.basis, self.expectation.count
        return StudyPlanned(self.study, self.retrieval_id, basis, count, len(self.skipped), self.tally.received)

    def progress(self) -> Progress:
        """Return how far it came."""
        return Progress(self.study, self.retrieval_id, self.expectation.count, self.present, self.bytes)

    def judged(self, trouble: Sequence[str]) -> tuple[VerdictKind, str]:
        """Return the kind of its verdict and the words for it; `trouble` is what went wrong on the way, worst first."""
        told = (*self.expectation.notes, *conflict_notes(self.conflicts))
        return judge(replace(self.expectation, notes=told), self.tally, skipped=len(self.skipped), trouble=trouble)

    def verdict(self, kind: VerdictKind, note: str, *, asked: str, seconds: float) -> Verdict:
        """Return the verdict of `kind`, with the counts and sets as they stand."""
        return Verdict(
            kind=kind,
            study_instance_uid=self.study,
            basis=self.expectation.basis,
            expected=self.expectation.count,
            received=self.tally.received,
            skipped=len(self.skipped),
            missing=self.tally.missing,
            note=note,
            seconds=seconds,
            bytes=self.bytes,
            asked=asked,
            unfit=dict(self.tally.unfit),
            retrieval_id=self.retrieval_id,
        )
