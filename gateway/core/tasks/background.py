"""A nursery for work that outlives whoever asked for it. On trio."""

from __future__ import annotations

import trio


class Background:
    """Is the parent of tasks for as long as `run` runs; before that, `_nursery` is None and nothing can be started."""

    _nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there for `start` until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()
