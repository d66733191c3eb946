"""The schema's history: each migration takes a ledger from version n-1 to n, inside one transaction.

Version 1 creates the tables as `gateway.ledger.schema` first had them. A later change appends a function here; the ones
before it stay as they are, because ledgers in the field were written by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, inspect, select

from gateway.errors import LedgerTooNew
from gateway.ledger.schema import metadata, schema_version

Migration = Callable[[Connection], None]


def _create(connection: Connection) -> None:
    metadata.create_all(connection)


MIGRATIONS: Sequence[Migration] = (_create,)


def current_version(connection: Connection) -> int:
    """Return the schema version of the database, 0 for an empty one."""
    if not inspect(connection).has_table(schema_version.name):
        return 0
    return int(connection.execute(select(schema_version.c.version)).scalar_one())


def migrate(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the database to the newest version and return it.

    Raises:
        LedgerTooNew: a newer gateway wrote it.

    """
    version = current_version(connection)
    if version > len(migrations):
        raise LedgerTooNew(f"the ledger has schema version {version}; this gateway knows {len(migrations)}: update the gateway")
    for migration in migrations[version:]:
        migration(connection)
    if version == 0:
        connection.execute(insert(schema_version).values(version=len(migrations)))
    elif version < len(migrations):
        connection.execute(schema_version.update().values(version=len(migrations)))
    return len(migrations)
