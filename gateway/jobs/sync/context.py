"""The services that a sync works with: the places it asks, the retriever, the ledger. Blocking work is on threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from gateway.archives.places import Place
from gateway.ledger import Ledger
from gateway.ledger.deliveries.underway import Underway, underway
from gateway.retrieve import Retriever

T = TypeVar("T")

MAX_THREADS = 16
"""Questions of one sync at a time."""

OpenPlace = Callable[[str], Place]
"""Gives the place that a source or destination is, by name."""


@dataclass(frozen=True)
class SyncContext:
    """The services that all syncs share.

    `source` and `destination` give what is to be asked; `verified` gives a destination as our own ledger knows it. `barrier`
    returns once the ledger has everything that was answered 0000. `busy` are studies, as (source, Study Instance UID), that some
    sync is retrieving.
    """

    retriever: Retriever
    ledger: Ledger
    barrier: Callable[[], None]
    source: OpenPlace
    destination: OpenPlace
    verified: OpenPlace
    threads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(MAX_THREADS))
    clock: Callable[[], float] = time.time
    busy: set[tuple[str, str]] = field(default_factory=set)

    async def ask(self, question: Callable[[], T]) -> T:
        """Ask on a thread; when cancelled, the answer is no longer waited for."""
        return await trio.to_thread.run_sync(question, limiter=self.threads, abandon_on_cancel=True)

    async def underway(self, study: str, destination: str, *, by_routes: bool) -> Underway:
        """Return how a study stands at a destination as far as the gateway had to do with it.

        Raises:
            LedgerUnavailable: the ledger cannot be read, or does not take what was answered.

        """
        query = partial(underway, study_instance_uid=study, destination=destination, by_routes=by_routes)
        return await self.ask(partial(self.ledger.ask, query, after=self.barrier))
