"""The ledger's record of the retrieval of one study: the instances that are expected, and those of them that are here.

The functions that are given a connection run in transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from gateway.core.domain import Basis, Priority
from gateway.ledger.jobs import retrievals
from gateway.retrieve.request import JobSpec
from gateway.retrieve.verdict import Expectation, Sorted, Tally, sort, tally


@dataclass(frozen=True)
class Here:
    """The instances that are here, and how many of them came with other content than was known."""

    came: Sorted
    conflicts: int


@dataclass
class RetrievalRecord:
    """The retrieval `retrieval_id` of `study` on behalf of `spec`. `skipped` are listed instances that need not come."""

    retrieval_id: int
    study: str
    spec: JobSpec
    expectation: Expectation = field(default_factory=lambda: Expectation(Basis.UIDS, None, {}))
    skipped: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=lambda: Tally((), 0, (), None))
    conflicts: int = 0
    classes: Mapping[str, str] = field(default_factory=dict)
    """The SOP classes of what is here."""

    @property
    def wanted(self) -> Collection[str]:
        """The UIDs that are listed and have to come."""
        return self.expectation.listed.keys() - self.skipped

    def expect(self, connection: Connection) -> Here:
        """Record what is expected, in place of what was before; return what of it is here."""
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

    def take(self, here: Here) -> Tally:
        """Compare what is here with what is expected."""
        self.conflicts, self.classes = here.conflicts, here.came.classes
        self.tally = tally(self.expectation, here.came.fit, self.skipped, here.came.unfit)
        return self.tally
