"""A ledger of any earlier version becomes what an empty one is made as."""

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection, create_engine, event, text

from gateway.core.errors import LedgerTooNew
from gateway.ledger.database.migrations import MIGRATIONS, migrate
from gateway.ledger.database.schema import schema_version

VERSION_11 = (
    "DROP TABLE nodes",
    "ALTER TABLE instances DROP COLUMN node",
    *(
        f"ALTER TABLE {table} DROP COLUMN {column}"
        for table in ("deliveries", "jobs", "starts")
        for column in ("node", "epoch", "lease_until")
    ),
)
"""Statements that make the newest ledger one of version 11."""

VERSION_10 = (*VERSION_11, "ALTER TABLE instances DROP COLUMN unfit", "ALTER TABLE planned_studies DROP COLUMN outcome")
"""Statements that make the newest ledger one of version 10."""

VERSION_9 = (*VERSION_10, "DROP TABLE starts")
"""Statements that make the newest ledger one of version 9."""

VERSION_7 = (
    *VERSION_9,
    "DROP INDEX deliveries_of_before",
    "ALTER TABLE deliveries DROP COLUMN was_there",
    "ALTER TABLE deliveries DROP COLUMN superseded",
    "ALTER TABLE instances DROP COLUMN same_as",
)
"""Statements that make the newest ledger one of version 7."""

VERSION_6 = (*VERSION_7, "DROP TABLE planned_studies", "DROP TABLE planned_portions", "ALTER TABLE jobs DROP COLUMN detached")
"""Statements that make the newest ledger one of version 6."""

VERSION_5 = (
    *VERSION_6,
    "DROP INDEX deliveries_due",
    "ALTER TABLE deliveries DROP COLUMN priority",
    "CREATE INDEX deliveries_due ON deliveries (destination, due_at, id) WHERE state IN ('pending', 'deferred')",
)
"""Statements that make the newest ledger one of version 5."""

VERSION_4 = (*VERSION_5, *(f"ALTER TABLE jobs DROP COLUMN {name}" for name in ("priority", "destinations")))
"""Statements that make the newest ledger one of version 4."""

VERSION_3 = (
    *VERSION_4,
    "DROP INDEX deliveries_to_transcode",
    "DROP INDEX deliveries_transcoded",
    *(f"ALTER TABLE deliveries DROP COLUMN {name}" for name in ("awaits_transcoding", "sent_as", "mode")),
)
"""Statements that make the newest ledger one of version 3."""

VERSION_2 = (
    *VERSION_3,
    "DROP INDEX instances_by_study",
    "CREATE INDEX instances_by_study ON instances (study_instance_uid, series_instance_uid)",
    "DROP INDEX arrivals_by_retrieval",
    "CREATE INDEX arrivals_by_retrieval ON arrivals (retrieval_id, sop_instance_uid)",
    "DROP INDEX deliveries_by_state",
    "CREATE INDEX deliveries_by_state ON deliveries (destination, state, changed_at)",
)
"""Statements that make the newest ledger one of version 2."""

VERSION_1 = (
    *VERSION_2,
    "DROP INDEX instances_missing",
    "DROP INDEX instances_released",
    "DROP INDEX instances_not_routed",
    "DROP INDEX instances_superseded",
    "DROP INDEX deliveries_held",
    "DROP INDEX commitments_awaited",
    "DROP INDEX commitment_items_by_delivery",
    "CREATE INDEX instances_unrouted ON instances (id) WHERE NOT routed",
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def schema(connection: Connection) -> dict[str, str]:
    rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    return {row.name: " ".join(row.sql.split()) for row in rows}


@pytest.mark.parametrize(
    ("version", "statements"),
    [
        *enumerate((VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6, VERSION_7), 1),
        (9, VERSION_9),
        (10, VERSION_10),
        (11, VERSION_11),
    ],
)
def test_a_ledger_of_an_earlier_version_becomes_what_a_new_one_is(
    connection: Connection, version: int, statements: Sequence[str]
) -> None:
    newest = migrate(connection)
    wanted = schema(connection)
    for statement in statements:
        connection.execute(text(statement))
    connection.execute(schema_version.update().values(version=version))
    assert schema(connection) != wanted
    assert migrate(connection) == newest == len(MIGRATIONS) + 1
    assert schema(connection) == wanted
    assert migrate(connection) == newest


def test_what_was_recorded_without_a_data_set_is_held_and_may_come_again(connection: Connection) -> None:
    migrate(connection)
    for number, length in enumerate((-4_300_000_000, 0, 7), 1):
        connection.execute(
            text(
                "INSERT INTO instances (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, study_instance_uid, "
                "series_instance_uid, location, content_offset, content_length, digest, calling_ae, called_ae, address, "
                "association, received_at, routed) "
                "VALUES (:id, '1.2', '1.3', '1.4', '', '', 'file:' || :id, 318, :length, '', '', '', '', '', 0, 1)"
            ),
            {"id": number, "length": length},
        )
        for destination, state in (("a", "verified"), ("b", "dropped")):
            connection.execute(
                text(
                    "INSERT INTO deliveries (instance_id, destination, state, due_at, changed_at, proof) "
                    "VALUES (:id, :destination, :state, 0, 0, 'exists')"
                ),
                {"id": number, "destination": destination, "state": state},
            )
    connection.execute(schema_version.update().values(version=7))
    assert migrate(connection, MIGRATIONS[:7]) == 8
    held = connection.execute(text("SELECT instance_id, destination, proof FROM deliveries WHERE state = 'held'")).all()
    assert held == [(1, "a", None), (2, "a", None)]
    rows = connection.execute(text("SELECT location, content_offset, content_length, bytes_state FROM instances ORDER BY id")).all()
    assert rows == [("none:1", 0, 1, "missing"), ("none:2", 0, 1, "missing"), ("file:3", 318, 7, "kept")]


def test_a_newer_ledger_is_left_alone(connection: Connection) -> None:
    migrate(connection)
    connection.execute(schema_version.update().values(version=99))
    with pytest.raises(LedgerTooNew, match="99"):
        migrate(connection)
