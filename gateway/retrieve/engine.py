"""The retriever: jobs of studies, each planned, moved, compared, repaired and given its verdict.

Runs in trio; associations run on threads with a limiter of their own. `correlate` and `arrived` are called from
association threads and take no more than a lock.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import trio

from gateway.domain import Provenance
from gateway.ledger import Ledger
from gateway.retrieve.events import Event, PullRequest
from gateway.settings import Settings, TlsTable

AcceptanceOrder = Literal["j2k-first", "uncompressed-first"]
QueryLevel = Literal["STUDY", "SERIES", "IMAGE"]

Existing = Callable[[str, Collection[str]], set[str]]
"""Given a study and its series: the SOP Instance UIDs that all routed destinations hold. Blocking; called on a thread."""


class Retriever:
    """Retrieves studies from the configured sources to our own AE."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        tls: Callable[[TlsTable], ssl.SSLContext],
        set_order: Callable[[str, AcceptanceOrder], None],
        has_room: Callable[[], bool] = lambda: True,
        existing: Existing | None = None,
    ) -> None:
        """Make a retriever; it opens nothing before `pull` or `find`.

        `tls` makes a requestor's context; `set_order` changes the order in which transfer syntaxes are accepted from a source on
        its next associations; `has_room` says whether the spool takes more; `existing` is asked for `skip_existing`.
        """

    def pull(self, request: PullRequest) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Event]]:
        """Run a job; use as ``async with retriever.pull(request) as events: async for event in events: …``.

        The last event is `JobEnded`. Leaving the block early, or cancelling it, stops the job between instances: C-CANCEL, a
        short settling, then state ``stopped``; the same request carries on there.

        Raises (on entering):
            UsageError: no such source, it has no port, or the same pull is running.
        """
        raise NotImplementedError

    async def find(
        self, source: str, keys: Mapping[str, str], level: QueryLevel = "STUDY", *, limit: int | None = None
    ) -> list[dict[str, str]]:
        """Return the matches of `keys` at `level` as keyword → value, in the source's order, at most `limit` of them.

        Raises:
            UsageError: no such source, or a key is no DICOM keyword.
            AssociationError: the source could not be asked, or refused.

        """
        raise NotImplementedError

    def correlate(self, provenance: Provenance, sop_instance_uid: str) -> int | None:
        """Return the retrieval that an arriving instance is counted to, or None for unsolicited. Thread-safe, in memory."""
        raise NotImplementedError

    def arrived(self, retrieval_id: int | None, sop_instance_uid: str, size_bytes: int) -> None:
        """Hint that an instance is durable and recorded; a lost hint costs time, never an instance. Thread-safe, never raises."""
        raise NotImplementedError
