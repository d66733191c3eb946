"""Removing bytes that nobody is owed any more: the ledger says so durably first, then the file goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.ledger import Ledger
from gateway.spool import Spool


class Releaser:
    """Releases the bytes of instances whose every delivery is settled, and forgets old history."""

    def __init__(self, spool: Spool, ledger: Ledger, *, history_s: float, clock: Callable[[], float] = time.time) -> None:
        """Keep the history of settled instances for `history_s` seconds."""

    def run_once(self, *, limit: int = 500) -> int:
        """Release up to `limit` instances and return how many; call again at once where that was `limit`.

        A crash in between leaves files that the ledger calls released: `recover` removes them.
        """
        raise NotImplementedError

    def forget_once(self, *, limit: int = 500) -> int:
        """Delete up to `limit` released instances from the ledger that are older than the history; return how many."""
        raise NotImplementedError
