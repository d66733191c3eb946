"""Associations with a source, kept open for a short while after use: what is asked of a study next needs no new one.

To open one costs both sides more than a small query does. `take`, `open` and `give_back` are for threads; `tidy` is for trio.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import trio

from gateway.association.scu.requestor import Requestor

KEEP_S = 2.0
"""The time one is kept: far less than any peer waits before it ends an idle association, and few peers take many at a time."""


class AssociationPool:
    """The associations of one kind with one AE."""

    def __init__(self, connect: Callable[[], Requestor], keep_s: float = KEEP_S) -> None:
        """`connect` opens one; with `keep_s` 0 none is kept."""
        self.open = connect
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Requestor]] = []
        self._tidying = False

    def take(self) -> Requestor | None:
        """Return the one that was used last, or None where none is kept. Its peer may have ended it: see `AssociationEnded`."""
        with self._lock:
            return self._idle.pop()[1] if self._idle else None

    def give_back(self, requestor: Requestor) -> None:
        """Keep one that nobody uses any more and whose operations are over; or release it, where none is kept."""
        if self._keep_s <= 0:
            requestor.release()
            return
        with self._lock:
            self._idle.append((time.monotonic(), requestor))

    def tidy(self) -> None:
        """See to it that what is kept is released in time."""
        if self._idle and not self._tidying:
            self._tidying = True
            trio.lowlevel.spawn_system_task(self._release_in_time)

    async def _release_in_time(self) -> None:
        # A system task: it ends with the run, and then what is still kept is aborted.
        try:
            while self._idle:
                await trio.sleep(self._keep_s)
                for requestor in self._drop(time.monotonic() - self._keep_s):
                    await trio.to_thread.run_sync(requestor.release)
        finally:
            self._tidying = False
            for requestor in self._drop(time.monotonic()) if self._idle else ():
                requestor.abort()

    def _drop(self, until: float) -> list[Requestor]:
        with self._lock:
            old = [requestor for since, requestor in self._idle if since <= until]
            self._idle = [one for one in self._idle if one[0] > until]
            return old
