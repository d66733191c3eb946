"""Removing bytes that nobody is owed any more: the ledger says so durably first, then the file goes."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from gateway.intake.recorder import remove_unneeded
from gateway.ledger import Ledger
from gateway.ledger.keeping import forget, forget_asked, kept_ids, mark_released, releasable
from gateway.spool import Spool

_log = structlog.get_logger()


class Releaser:
    """Releases the bytes of instances whose every delivery is settled, and forgets old history. One thread at a time."""

    def __init__(self, spool: Spool, ledger: Ledger, *, history_s: float, clock: Callable[[], float] = time.time) -> None:
        """Keep the history of settled instances for `history_s` seconds."""
        self._spool = spool
        self._ledger = ledger
        self._history_s = history_s
        self._clock = clock
        self._after = 0

    @property
    def walked(self) -> bool:
        """True when the next `run_once` begins anew with the oldest kept instance."""
        return self._after == 0

    def run_once(self, *, limit: int = 2000) -> int:
        """Look at the next `limit` instances whose bytes are kept, release what may go, and return how many that were.

        Calls walk through all kept instances in turn, so that a long backlog costs each call no more than its own window.
        A crash in between leaves files that the ledger calls released: `recover` removes them.

        Raises:
            LedgerUnavailable: nothing was released.

        """
        with self._ledger.read() as connection:
            window = kept_ids(connection, after=self._after, limit=limit)
            free = [instance_id for instance_id, _ in releasable(connection, window)]
        self._after = window[-1] if len(window) == limit else 0
        if not free:
            return 0
        locations = self._ledger.write(lambda connection: mark_released(connection, free))
        for location in locations:
            remove_unneeded(self._spool, location)
        _log.debug("bytes_released", count=len(locations))
        return len(locations)

    def forget_once(self, *, limit: int = 200) -> bool:
        """Delete some of what is older than the history: up to `limit` released instances, and what was asked of peers.

        Returns whether there may be more.

        Raises:
            LedgerUnavailable: nothing was deleted.

        """
        before = self._clock() - self._history_s
        instances = self._ledger.write(lambda connection: forget(connection, before=before, limit=limit))
        asked = self._ledger.write(lambda connection: forget_asked(connection, before=before))
        return instances + asked > 0
