"""The ledger: truth for decisions. SQLAlchemy Core on SQLite (PostgreSQL when outgrown), one writer with group commit.

Synchronous: called directly from association threads, through ``trio.to_thread`` from trio. Reads run on their own
connections; every change goes through `Ledger.write`, whose single writer thread gathers what is waiting into one
transaction and answers each caller only after the commit is durable. SQLite 3.40 corrupts its WAL when two connections
write or checkpoint at once, so the writer's connection alone writes and checkpoints.

`database` is the engine: schema, migrations, the writer, the allowed transitions, who owns what is worked on, and room of its own
on a disk that runs full.
The other folders hold the queries, by what they are about: `received` (what arrived, and whose bytes are kept), `deliveries`
(instance × destination: claims, proofs, what people see of them and do about them), `jobs` (what was asked of a source, migrations,
detached commands, starts that ended the process), `peers` (what peers taught us).
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.ledger.database.ballast import Ballast
    from gateway.ledger.database.writer import Ledger
else:
    __getattr__ = lazily(
        __name__,
        {
            "database.ballast": ("Ballast",),
            "database.writer": ("Ledger",),
        },
    )

__all__ = ["Ballast", "Ledger"]
