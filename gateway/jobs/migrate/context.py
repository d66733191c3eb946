"""The services that migrations work with: the retriever, the ledger, and what `gateway.app.planners` gives them of other rooms."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import trio
from sqlalchemy import Connection

from gateway.ledger import Ledger
from gateway.retrieve import Retriever

T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """The studies that a portion has, each with the source's count of its instances, and why there may be more."""

    studies: tuple[tuple[str, int | None], ...]
    doubt: str = ""


Lister = Callable[[str, Mapping[str, str]], Awaitable[Listed]]
"""Lists the studies of a source that match keys, all of them, however many; raises AssociationError."""


class Original(Protocol):
    """The source as the one who may delete from it sees it. Blocking."""

    def instances(self, study_instance_uid: str) -> dict[str, set[str]]:
        """Return the SOP Instance UIDs that it holds now under a Study Instance UID, by its own identifiers of the study."""

    def delete(self, identifiers: Collection[str]) -> None:
        """Delete what it holds under its own identifiers."""

    def close(self) -> None:
        """End its connections."""


@dataclass(frozen=True)
class MigrateContext:
    """The services that every migration works with.

    `barrier` returns once the ledger has everything that was answered 0000. `crowded` tells why nothing more is to be brought to
    some destinations now, given a share of the spool's file system that is not to be exceeded; empty where all is well. `original`
    opens a source to delete from. Both block; they are called on threads.
    """

    retriever: Retriever
    ledger: Ledger
    barrier: Callable[[], None]
    lists: Lister
    crowded: Callable[[Collection[str], float | None], str]
    original: Callable[[str], Original]
    clock: Callable[[], float] = time.time
    threads: trio.CapacityLimiter = field(default_factory=partial(trio.CapacityLimiter, 8))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Ask the ledger, which has everything that was answered 0000 before."""
        return await trio.to_thread.run_sync(partial(self.ledger.ask, query, after=self.barrier), limiter=self.threads)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Change the ledger, durably."""
        return await trio.to_thread.run_sync(self.ledger.write, change, limiter=self.threads)
