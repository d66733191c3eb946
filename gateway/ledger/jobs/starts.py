"""Starts that came to no end: what the gateway begins by itself is counted before it begins, and the count is durable.

A run that ends in order, however it went, is counted no more. So a count that is left says how often in a row the process ended in
the middle of it (a crash of ours, SIGKILL, a segmentation fault), and what has ended `MOST` starts is not begun by itself again.
Names are ``migration 12``, ``sync NAME`` and ``compare NAME``. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gateway.ledger.database.ownership import claimed
from gateway.ledger.database.schema import starts

MOST = 2
"""After so many starts in a row that came to no end, a person decides about the next one."""


@dataclass(frozen=True, slots=True)
class Unended:
    """The number of times in a row that something came to no end, and why it failed the last time that it did end (else empty)."""

    count: int = 0
    error: str = ""

    @property
    def parked(self) -> bool:
        """Tell whether it is not to be begun by itself."""
        return self.count >= MOST


def of_migration(job_id: int) -> str:
    """Return the name under which the starts of a migration are counted."""
    return f"migration {job_id}"


def begin(connection: Connection, name: str, *, by_itself: bool, now: float) -> int:
    """Count a start of `name` and return how many before it, in a row, came to no end; one that a person asks for is the first."""
    before = get(connection, name).count if by_itself else 0
    _put(connection, name, count=before + 1, error="", now=now, **claimed(connection, now))
    return before


def end(connection: Connection, name: str, *, error: str = "", now: float) -> None:
    """Record that `name` ended in order, or goes well; `error` says why it failed."""
    _put(connection, name, count=0, error=error, now=now)


def get(connection: Connection, name: str) -> Unended:
    """Return how it stands with `name`."""
    row = connection.execute(select(starts.c.unended, starts.c.error).where(starts.c.name == name)).one_or_none()
    return Unended() if row is None else Unended(int(row.unended), row.error or "")


def noted(connection: Connection) -> dict[str, Unended]:
    """Return by name whatever came to no end, or failed."""
    rows = connection.execute(select(starts).order_by(starts.c.name))
    return {row.name: Unended(int(row.unended), row.error or "") for row in rows if row.unended or row.error}


def _put(connection: Connection, name: str, *, count: int, error: str, now: float, **owner: Any) -> None:
    values = {"unended": count, "error": error or None, "at": now, **owner}
    if connection.execute(update(starts).where(starts.c.name == name).values(**values)).rowcount == 0:
        connection.execute(insert(starts).values(name=name, **values))
