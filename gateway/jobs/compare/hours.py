"""The hours within which a comparison works. Runs in trio.

Work that is under way at their end is broken off, and done once more when they open: a question, the reading of one instance, the
retrieval of a study, of which what came counts. So nothing that was found out before is asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.jobs.working_hours import Window

T = TypeVar("T")


async def nobody() -> None:
    """Tell nobody."""


@dataclass
class Hours:
    """Hours that several tasks keep to; `waits` is called whenever they begin to wait for them, once for all."""

    window: Window = field(default_factory=lambda: Window(None))
    waits: Callable[[], Awaitable[None]] = nobody
    _waiting: bool = False

    async def within(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns, which is cancelled when the hours end, and called again when they begin."""
        while True:
            if not (self.window.is_open() or self._waiting):
                self._waiting = True
                await self.waits()
            async with self.window.while_open():
                self._waiting = False
                return await work()
