"""Migrating a source: every study of a range of dates or of a list, moved, delivered, proved, and reported one by one.

A planner on top of `gateway.retrieve`: it decides which studies are moved when; each is retrieved with its verdict by a session.
Its plan is in the ledger (`gateway.ledger.jobs.planning`), so that it survives anything.

`request`, `pacing` and `estimate` are pure; `runner` is the trio orchestration, `service` the migrations of a gateway.
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.jobs.migrate.context import Listed, MigrateContext
    from gateway.jobs.migrate.request import MigrationRequest
    from gateway.jobs.migrate.runner import Migration
    from gateway.jobs.migrate.service import Migrations, Running
else:
    __getattr__ = lazily(
        __name__,
        {
            "context": (
                "Listed",
                "MigrateContext",
            ),
            "request": ("MigrationRequest",),
            "runner": ("Migration",),
            "service": (
                "Migrations",
                "Running",
            ),
        },
    )

__all__ = ["Listed", "MigrateContext", "Migration", "MigrationRequest", "Migrations", "Running"]
