"""Letting go of bytes that nobody is owed any more: the ledger says so durably first, then the spool hears of it.

Instances that are held for long are moved out of segments that are otherwise free, so that one of them does not keep the room of
a thousand.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.core import metrics
from gateway.core.errors import SpoolError, SpoolMissing
from gateway.core.log import get_logger
from gateway.ledger import Ledger
from gateway.ledger.received.instances import StoredInstance, at_locations
from gateway.ledger.received.keeping import (
    forget,
    forget_asked,
    forgettable,
    kept_ids,
    mark_released,
    movable,
    releasable,
    relocate,
    remembered_since,
)
from gateway.spool import Spool

_log = get_logger()

MOVE_AFTER_S = 3600.0
"""A segment is left alone for this long: most of what it holds goes by itself."""

MOVE_BELOW = 0.25
"""Instances are moved out of a segment of which less than this part is held."""


class Releaser:
    """Releases the bytes of instances whose every delivery is settled, and forgets old history. One thread at a time."""

    def __init__(self, spool: Spool, ledger: Ledger, *, history_s: float, clock: Callable[[], float] = time.time) -> None:
        """Keep the history of settled instances for `history_s` seconds."""
        self._spool = spool
        self._ledger = ledger
        self._history_s = history_s
        self._clock = clock
        self._after = 0
        self._moved_after = ""

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
            self._spool.tidy()
            return 0
        locations = self._ledger.write(lambda connection: mark_released(connection, free))
        for location in locations:
            self._let_go(location)
        self._spool.tidy()
        metrics.RELEASED.add(len(locations))
        _log.debug("bytes_released", count=len(locations))
        return len(locations)

    def move_out_once(self) -> int:
        """Move what is held of the next segment that is old and mostly free into files of their own; returns how many that were.

        Only what no delivery is about to read. A crash in between leaves two copies, of which `recover` removes the one that the
        ledger does not know.

        Raises:
            LedgerUnavailable, SpoolError: the rest stays where it is.

        """
        pinned = self._spool.pinned(before=self._clock() - MOVE_AFTER_S, fill=MOVE_BELOW, after=self._moved_after)
        self._moved_after, locations = pinned or ("", [])
        with self._ledger.read() as connection:
            known = at_locations(connection, locations)
            quiet = set(movable(connection, [instance.id for instance in known.values()]))
        return sum(self._move_out(instance) for instance in known.values() if instance.id in quiet)

    def _move_out(self, instance: StoredInstance) -> bool:
        location = instance.content.location
        try:
            copy = self._spool.move_out(location)
        except SpoolMissing as error:
            _log.error("spool_bytes_missing", location=location, reason=str(error))
            return False
        moved = self._ledger.write(lambda connection: relocate(connection, instance.id, location, copy))
        self._spool.remove(location if moved else copy.location)
        return moved

    def _let_go(self, location: str) -> None:
        try:
            self._spool.release(location)
        except SpoolError as error:
            _log.warning("spool_file_left", location=location, error=str(error))

    def forget_once(self, *, limit: int = 200) -> bool:
        """Delete some of what is older than the history: up to `limit` released instances, and what was asked of peers.

        A migration may take longer than that: while one runs, its instances are remembered, for its report and for its proofs.
        Returns whether there may be more.

        Raises:
            LedgerUnavailable, SpoolError: nothing was deleted.

        """
        before = self._clock() - self._history_s
        instances = self._forget_instances(before, limit)
        asked = self._ledger.write(lambda connection: forget_asked(connection, before=before))
        return instances + asked > 0

    def _forget_instances(self, before: float, limit: int) -> int:
        """Forget released instances, once nothing of them can be found in the spool any more: it would be taken for new."""
        with self._ledger.read() as connection:
            since = remembered_since(connection)
            before = before if since is None else min(before, since)
            found = forgettable(connection, before=before, limit=limit)
        if not found:
            return 0
        for _, location in found:
            self._spool.remove(location)
        self._spool.sync_removals()
        forgotten = self._ledger.write(lambda connection: forget(connection, found, before=before))
        metrics.FORGOTTEN.add(forgotten)
        return forgotten
