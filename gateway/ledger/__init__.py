"""The ledger: truth for decisions. SQLAlchemy Core on SQLite (PostgreSQL when outgrown), one writer with group commit.

Synchronous: called directly from association threads, through ``trio.to_thread`` from trio. Reads run on their own
connections; every change goes through `Ledger.write`, whose single writer thread gathers what is waiting into one
transaction and answers each caller only after the commit is durable. SQLite 3.40 corrupts its WAL when two connections
write or checkpoint at once, so the writer's connection alone writes and checkpoints.

`ballast` keeps room for the ledger on a disk that runs full; `recording` and `changeset` take in what arrives. The other modules
hold the queries, grouped by what they are about:
`instances` (what arrived), `keeping` (whose bytes are kept), `deliveries` (instance × destination), `mending` (when the
configuration or the clock changed), `proofs`, `commitments` (Storage Commitment transactions), `retrievals` (what was asked of a
source), `starts` (what ended the process in the middle), `learned` (what peers taught us), `overview` (what `status` shows),
`queue` and `progress` (what people and commands see of deliveries).
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
