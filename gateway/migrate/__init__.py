"""Migrating a source: every study of a range of dates or of a list, moved, delivered, proved, and reported one by one.

A planner on top of `gateway.retrieve`: it decides which studies are moved when; each is retrieved with its verdict by a session.
Its plan is in the ledger (`gateway.ledger.planning`), so that it survives anything.

`request`, `pacing`, `estimate` and `split` are pure; `runner` is the trio orchestration, `service` the migrations of a gateway.
"""

from typing import TYPE_CHECKING

from gateway.exports import lazily

if TYPE_CHECKING:
    from gateway.migrate.means import Listed, Means
    from gateway.migrate.request import MigrationRequest
    from gateway.migrate.runner import Migration
    from gateway.migrate.service import Migrations, Running
else:
    __getattr__ = lazily(
        __name__,
        {
            "means": (
                "Listed",
                "Means",
            ),
            "request": ("MigrationRequest",),
            "runner": ("Migration",),
            "service": (
                "Migrations",
                "Running",
            ),
        },
    )

__all__ = ["Listed", "Means", "Migration", "MigrationRequest", "Migrations", "Running"]
