"""No query that is asked again and again reads a whole table, or a whole queue for one study."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from gateway.ledger import Ledger
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import commitments, mending, overview, progress, proofs, transcoding
from gateway.ledger.jobs import planning, retrievals
from gateway.ledger.received import conflicts, instances, keeping

QUERIES: dict[str, Callable[[Connection], Any]] = {
    "claim": lambda connection: table.claim(connection, "a", now=1.0, max_instances=64, max_bytes=1),
    "take over": lambda connection: table.take_over(connection, "a", now=1.0),
    "pull forward": lambda connection: mending.pull_forward(connection, "a", now=1.0, horizon_s=1.0),
    "waiting studies": lambda connection: proofs.waiting_studies(connection, "a"),
    "kept": lambda connection: keeping.kept_ids(connection, after=5),
    "releasable": lambda connection: keeping.releasable(connection, [1, 2, 3]),
    "forget": lambda connection: keeping.forgettable(connection, before=1.0),
    "unrouted": lambda connection: instances.unrouted(connection, after=5),
    "find": lambda connection: instances.find(connection, "1.2"),
    "conflicts": overview.conflicts,
    "held reasons": overview.held_reasons,
    "holdings": overview.holdings,
    "received": lambda connection: retrievals.received(connection, 1),
    "received of a study": lambda connection: retrievals.came_of_study(connection, 1, "1.2"),
    "conflicts of a retrieval": lambda connection: retrievals.conflicts(connection, 1),
    "unproved": lambda connection: retrievals.unproved(connection, 1),
    "deliveries of a job": lambda connection: progress.count_states(connection, progress.Scope(job_id=1)),
    "unrouted of a job": lambda connection: progress.unrouted(connection, progress.Scope(job_id=1)),
    "overdue reports": lambda connection: commitments.expired(connection, "a", now=1.0),
    "waiting to be transcoded": lambda connection: transcoding.waiting(connection, "a", limit=10),
    "transcoded and not sent": transcoding.copied,
    "transcoding anew": lambda connection: transcoding.start_over(connection, now=1.0),
    "next report": lambda connection: commitments.next_deadline(connection, "a"),
}

OF_FEW_ROWS: dict[str, Callable[[Connection], Any]] = {
    "recover what was being sent": lambda connection: table.recover_sending(connection, now=1.0),
    "adapt to the configuration": lambda connection: mending.adapt(connection, {"a": None}, now=1.0),
    "pairs of contents": lambda connection: conflicts.pairs(connection, after=(0, 0), limit=10),
}
"""Asked at each start, or each time something is found: of a history of ten million they are to read next to nothing."""

OF_ONE_STUDY: dict[str, Callable[[Connection], Any]] = {
    "unverified": lambda connection: proofs.unverified(connection, "a", "1.2"),
    "busy": lambda connection: proofs.is_busy(connection, "a", "1.2"),
}

OF_A_MIGRATION: dict[str, Callable[[Connection], Any]] = {
    "how far it is": lambda connection: planning.counts(connection, 1),
    "what is left": lambda connection: planning.undone(connection, 1),
    "what may be deleted": lambda connection: planning.to_delete(connection, 1),
    "its report": lambda connection: planning.report(connection, 1),
    "carrying a study on": lambda connection: retrievals.open_retrieval(connection, 1, "archive", "1.2", now=1.0),
}

FOREIGN_KEYS = (
    "SELECT 1 FROM instances WHERE superseded_by = 1",
    "SELECT 1 FROM deliveries WHERE instance_id = 1",
    "SELECT 1 FROM arrivals WHERE instance_id = 1",
    "SELECT 1 FROM arrivals WHERE retrieval_id = 1",
    "SELECT 1 FROM commitment_items WHERE delivery_id = 1",
    "SELECT 1 FROM commitment_items WHERE transaction_uid = '1'",
    "SELECT 1 FROM expected_instances WHERE retrieval_id = 1",
    "SELECT 1 FROM retrievals WHERE job_id = 1",
)

# The newest arrival is the last row of a table that is read from its end.
WHOLE_TABLE = re.compile(r"SCAN (instances|deliveries|older|newer|other|commitment\w*)(?!.*INDEX)")

WHOLE_INDEX = re.compile(r"SCAN (instances|deliveries|older|newer)|SEARCH \w+ USING INTEGER PRIMARY KEY \(rowid>\?\)")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def steps(ledger: Ledger, query: Callable[[Connection], Any]) -> list[str]:
    """Return the steps by which SQLite answers the statements of `query`."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
        asked.append((statement, parameters))

    def ask(connection: Connection) -> list[str]:
        event.listen(connection, "before_cursor_execute", note)
        query(connection)
        event.remove(connection, "before_cursor_execute", note)
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters) for statement, parameters in asked]
        return [row[3] for plan in plans for row in plan]

    return ledger.write(ask)


@pytest.mark.parametrize("name", QUERIES)
def test_no_table_is_read_as_a_whole(ledger: Ledger, name: str) -> None:
    taken = steps(ledger, QUERIES[name])
    assert taken
    assert [step for step in taken if WHOLE_TABLE.match(step)] == []


@pytest.mark.parametrize("name", OF_FEW_ROWS)
def test_no_index_is_read_as_a_whole_either(ledger: Ledger, name: str) -> None:
    taken = steps(ledger, OF_FEW_ROWS[name])
    assert taken
    assert [step for step in taken if WHOLE_INDEX.match(step)] == []


@pytest.mark.parametrize("name", OF_ONE_STUDY)
def test_what_is_asked_of_one_study_begins_with_the_study(ledger: Ledger, name: str) -> None:
    taken = steps(ledger, OF_ONE_STUDY[name])
    assert "instances_by_study" in taken[0]
    assert not any("deliveries_by_state" in step for step in taken)


@pytest.mark.parametrize("name", OF_A_MIGRATION)
def test_a_study_is_looked_up_among_all_of_its_migration(ledger: Ledger, name: str) -> None:
    ledger.write(lambda connection: retrievals.open_job(connection, "migrate", "f", "{}", now=1.0))
    taken = [step for step in steps(ledger, OF_A_MIGRATION[name]) if "retrievals_by_job" in step]
    assert any("job_id=? AND study_instance_uid=?" in step for step in taken)


@pytest.mark.parametrize("statement", FOREIGN_KEYS)
def test_every_foreign_key_has_an_index(ledger: Ledger, statement: str) -> None:
    taken = steps(ledger, lambda connection: connection.exec_driver_sql(statement).all())
    assert [step for step in taken if "INDEX" not in step] == []
