"""The schema's history: an empty database gets the newest schema, an older one is brought there step by step.

Each migration takes a ledger from one version to the next, inside one transaction. A later change appends a function here; the
ones before it stay as they are, because ledgers in the field were written by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, inspect, select, text

from gateway.core.errors import LedgerTooNew
from gateway.ledger.database.schema import (
    deliveries,
    instances,
    jobs,
    metadata,
    nodes,
    planned_portions,
    planned_studies,
    schema_version,
    starts,
)

Migration = Callable[[Connection], None]


def _indexes_for_many(connection: Connection) -> None:
    """Version 2: indexes without which a ledger of a million deliveries reads all of them."""
    small_ints = connection.dialect.name == "sqlite"
    for statement in (
        "DROP INDEX instances_unrouted",
        "CREATE INDEX instances_missing ON instances (id) WHERE bytes_state = 'missing'",
        "CREATE INDEX instances_released ON instances (received_at) WHERE bytes_state = 'released'",
        f"CREATE INDEX instances_not_routed ON instances (id) WHERE {'routed = 0' if small_ints else 'NOT routed'}",
        "CREATE INDEX instances_superseded ON instances (superseded_by) WHERE superseded_by IS NOT NULL",
        "CREATE INDEX deliveries_held ON deliveries (destination, reason) WHERE state = 'held'",
        "CREATE INDEX commitments_awaited ON commitments (destination, deadline_at) WHERE answered_at IS NULL",
        "CREATE INDEX commitment_items_by_delivery ON commitment_items (delivery_id)",
    ):
        connection.execute(text(statement))


def _narrow_indexes(connection: Connection) -> None:
    """Version 3: what each arrival and each change of a state has to write, without what no query asks for."""
    for statement in (
        "DROP INDEX instances_by_study",
        "CREATE INDEX instances_by_study ON instances (study_instance_uid)",
        "DROP INDEX arrivals_by_retrieval",
        "CREATE INDEX arrivals_by_retrieval ON arrivals (retrieval_id, sop_instance_uid) WHERE retrieval_id IS NOT NULL",
        "DROP INDEX deliveries_by_state",
        "CREATE INDEX deliveries_by_state ON deliveries (destination, state)",
    ):
        connection.execute(text(statement))


def _transfer_syntaxes(connection: Connection) -> None:
    """Version 4: in which transfer syntax a delivery goes out, and what waits for being brought into it."""
    small_ints = connection.dialect.name == "sqlite"
    for statement in (
        "ALTER TABLE deliveries ADD COLUMN mode VARCHAR(16)",
        "ALTER TABLE deliveries ADD COLUMN sent_as VARCHAR(64)",
        "ALTER TABLE deliveries ADD COLUMN awaits_transcoding BOOLEAN DEFAULT FALSE NOT NULL",
        "CREATE INDEX deliveries_to_transcode ON deliveries (destination, id) "
        f"WHERE {'awaits_transcoding = 1' if small_ints else 'awaits_transcoding'}",
        "CREATE INDEX deliveries_transcoded ON deliveries (destination, id) "
        "WHERE sent_as IS NOT NULL AND state IN ('pending', 'deferred', 'sending')",
    ):
        connection.execute(text(statement))


def _directed_jobs(connection: Connection) -> None:
    """Version 5: jobs that say where what comes for them goes, and how soon."""
    connection.execute(text("ALTER TABLE jobs ADD COLUMN destinations TEXT"))
    connection.execute(text("ALTER TABLE jobs ADD COLUMN priority INTEGER DEFAULT 1 NOT NULL"))


def _priorities(connection: Connection) -> None:
    """Version 6: deliveries that go before others."""
    for statement in (
        "ALTER TABLE deliveries ADD COLUMN priority INTEGER DEFAULT 1 NOT NULL",
        "DROP INDEX deliveries_due",
        "CREATE INDEX deliveries_due ON deliveries (destination, priority, due_at, id) WHERE state IN ('pending', 'deferred')",
    ):
        connection.execute(text(statement))


def _migrations(connection: Connection) -> None:
    """Version 7: what migrations planned, and jobs that go on by themselves."""
    for statement in (
        "ALTER TABLE jobs ADD COLUMN detached BOOLEAN DEFAULT FALSE NOT NULL",
        "DROP INDEX retrievals_by_job",
        "CREATE INDEX retrievals_by_job ON retrievals (job_id, study_instance_uid, id)",
    ):
        connection.execute(text(statement))
    planned_portions.create(connection)
    planned_studies.create(connection)


def _no_empty_contents(connection: Connection) -> None:
    """Version 8: what was taken in without a data set, and was called delivered, is held: no `Content` can be made of it.

    Its location goes, so that a file that was made whole since is read again.
    """
    for statement in (
        "UPDATE deliveries SET state = 'held', proof = NULL, reason = 'it ends within its header: nothing of it was delivered' "
        "WHERE state <> 'dropped' AND instance_id IN (SELECT id FROM instances WHERE content_length < 1 OR content_offset < 0)",
        "UPDATE instances SET location = 'none:' || id, content_offset = 0, content_length = 1, bytes_state = 'missing' "
        "WHERE content_length < 1 OR content_offset < 0",
    ):
        connection.execute(text(statement))


def _newest_at_each(connection: Connection) -> None:
    """Version 9: which content is the newest at each destination, what was there before, contents that differ in encoding only.

    Deliveries that were stopped at a destination by content that never was to go there are owed there again.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("ALTER TABLE deliveries ALTER COLUMN proof TYPE VARCHAR(32)"))
    for statement in (
        "ALTER TABLE deliveries ADD COLUMN superseded BOOLEAN DEFAULT FALSE NOT NULL",
        "ALTER TABLE deliveries ADD COLUMN was_there BOOLEAN",
        f"ALTER TABLE instances ADD COLUMN same_as {'INTEGER' if connection.dialect.name == 'sqlite' else 'BIGINT'}",
        "CREATE INDEX deliveries_of_before ON deliveries (destination) WHERE proof = 'exists (was there before)'",
        """UPDATE deliveries SET superseded = TRUE WHERE EXISTS (
            SELECT 1 FROM instances mine
            JOIN instances newer ON newer.sop_instance_uid = mine.sop_instance_uid AND newer.id > mine.id
            JOIN deliveries later ON later.instance_id = newer.id AND later.destination = deliveries.destination
            WHERE mine.id = deliveries.instance_id AND mine.superseded_by IS NOT NULL)
            AND instance_id IN (SELECT id FROM instances WHERE superseded_by IS NOT NULL)""",
        """UPDATE deliveries SET state = 'pending', reason = NULL WHERE state = 'held' AND NOT superseded
            AND reason = 'superseded by other content under the same SOP Instance UID'
            AND instance_id IN (SELECT id FROM instances WHERE superseded_by IS NOT NULL)""",
    ):
        connection.execute(text(statement))


def _starts(connection: Connection) -> None:
    """Version 10: how often in a row what begins by itself came to no end."""
    starts.create(connection, checkfirst=True)


def _unfit_instances(connection: Connection) -> None:
    """Version 11: instances whose bytes are not what they were declared to be, and what became of a migration's studies."""
    connection.execute(text("ALTER TABLE instances ADD COLUMN unfit TEXT"))
    # Version 7 makes its tables as they are now.
    if "outcome" not in {column["name"] for column in inspect(connection).get_columns(planned_studies.name)}:
        connection.execute(text("ALTER TABLE planned_studies ADD COLUMN outcome TEXT"))


def _ownership(connection: Connection) -> None:
    """Version 12: which node works on deliveries, jobs and what begins by itself, and which node has an instance's bytes."""
    nodes.create(connection, checkfirst=True)
    double = "DOUBLE" if connection.dialect.name == "sqlite" else "DOUBLE PRECISION"
    connection.execute(text(f"ALTER TABLE {instances.name} ADD COLUMN node VARCHAR(32)"))
    for table in (deliveries, jobs, starts):
        # Version 10 makes its table as it is now.
        if "node" not in {column["name"] for column in inspect(connection).get_columns(table.name)}:
            for column in ("node VARCHAR(32)", "epoch INTEGER DEFAULT 0 NOT NULL", f"lease_until {double}"):
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column}"))


MIGRATIONS: Sequence[Migration] = (
    _indexes_for_many,
    _narrow_indexes,
    _transfer_syntaxes,
    _directed_jobs,
    _priorities,
    _migrations,
    _no_empty_contents,
    _newest_at_each,
    _starts,
    _unfit_instances,
    _ownership,
)
"""The first one takes version 1 to version 2."""


class Incomplete(Exception):
    """The database is ours, and part of its schema is not there."""


def current_version(connection: Connection) -> int:
    """Return the schema version of the database, 0 for an empty one.

    Raises:
        Incomplete: it does not say which version it has.
    """
    if not inspect(connection).has_table(schema_version.name):
        return 0
    versions = list(connection.execute(select(schema_version.c.version)).scalars())
    if len(versions) != 1 or not isinstance(versions[0], int) or versions[0] < 1:
        raise Incomplete("no schema version")
    return versions[0]


def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the database to the newest version and return it.

    Raises:
        LedgerTooNew: a newer gateway wrote it.
        Incomplete: it is not whole.

    """
    version, newest = current_version(connection), len(migrations) + 1
    if version > newest:
        raise LedgerTooNew(f"the ledger has schema version {version}; this gateway knows {newest}: update the gateway")
    if version == 0:
        metadata.create_all(connection)
        connection.execute(insert(schema_version).values(version=newest))
        return newest
    for migration in migrations[version - 1 :]:
        migration(connection)
    if version < newest:
        connection.execute(schema_version.update().values(version=newest))
    if missing := sorted(metadata.tables.keys() - set(inspect(connection).get_table_names())):
        raise Incomplete(f"without the table {missing[0]}")
    return newest
