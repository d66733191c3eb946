"""Who may have a source's transfer syntaxes accepted in which order, and when. Runs in trio.

The order is one for all associations of a source, while several studies may be retrieved from it at a time: a round that
needs another order than those under way waits until they ended, and so do all that come after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from gateway.retrieve.repair import AcceptanceOrder


class Turns:
    """The acceptance orders of one source, in turn; `usual` holds while nobody has one."""

    def __init__(self, usual: AcceptanceOrder, set_order: Callable[[AcceptanceOrder], None]) -> None:
        self._usual = usual
        self._set_order = set_order
        self._now: AcceptanceOrder | None = None
        self._inside = 0
        self._gate = trio.Lock()
        self._left = trio.Event()

    @property
    def usual(self) -> AcceptanceOrder:
        """The order that works for the source, as far as is known."""
        return self._usual

    def learn(self, order: AcceptanceOrder) -> None:
        """Make `order` the usual one."""
        self._usual = order
        if not self._inside:
            self._apply(order)

    @asynccontextmanager
    async def take(self, order: AcceptanceOrder) -> AsyncIterator[None]:
        """Have transfer syntaxes accepted in `order` inside the ``async with``."""
        async with self._gate:
            while self._inside and self._now != order:
                await self._left.wait()
            self._apply(order)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._apply(self._usual)
            self._left.set()
            self._left = trio.Event()

    def _apply(self, order: AcceptanceOrder) -> None:
        if self._now != order:
            self._now = order
            self._set_order(order)
