"""The associations with a source that are kept open for a short while: what is asked of a study next needs no new one. On trio."""

from __future__ import annotations

import trio

from gateway.association.scu.pool import AssociationPool

KEEP_S = 2.0
"""The time one is kept: far less than any peer waits before it ends an idle association, and few peers take many at a time."""


class SourceAssociations(AssociationPool):
    """An `AssociationPool` that is emptied in time, wherever trio runs."""

    _tidying = False

    def tidy(self) -> None:
        """See to it that what is kept is released in time."""
        if not self.empty and not self._tidying:
            self._tidying = True
            trio.lowlevel.spawn_system_task(self._release_in_time)

    async def _release_in_time(self) -> None:
        # A system task: it ends with the run, and then what is still kept is aborted.
        try:
            while not self.empty:
                await trio.sleep(KEEP_S)
                for requestor in self.taken_out(idle_s=KEEP_S):
                    await trio.to_thread.run_sync(requestor.release)
        finally:
            self._tidying = False
            for requestor in self.taken_out():
                requestor.abort()
