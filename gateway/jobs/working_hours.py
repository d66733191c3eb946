"""Waiting for hours: a task sleeps until its schedule opens, and hears when it closes. On trio.

The wall clock decides, and it may be set at any time; so whoever waits looks again at least every minute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import trio

from gateway.core.schedule import Schedule

LOOK_EVERY_S = 60.0
"""A clock that was set is noticed within this, in seconds."""


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class Window:
    """The hours of a schedule as tasks see them; without a schedule it is always open. For the trio thread."""

    def __init__(self, schedule: Schedule | None, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.closing = trio.Event()
        """Set once the hours in which `open` was last entered are over."""

        self._schedule = schedule
        self._clock = clock

    def is_open(self) -> bool:
        """Tell whether it is open now."""
        return self._schedule is None or self._schedule.is_open(self._clock())

    def next_change(self) -> datetime | None:
        """Return when it opens or closes next, in UTC; None where it never does."""
        return None if self._schedule is None else self._schedule.next_change(self._clock())

    async def opened(self) -> None:
        """Wait until it is open."""
        await self._until(is_open=True)

    async def closed(self) -> None:
        """Wait until it is not."""
        await self._until(is_open=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.Event]:
        """Wait until it is open; ``async with`` is given `closing`, after which nothing new is to be begun.

        The body goes on when the window closes; `while_open` breaks it off.
        """
        await self.opened()
        if self.closing.is_set():
            self.closing = trio.Event()
        closing = self.closing
        async with self._watching(closing.set):
            yield closing

    @asynccontextmanager
    async def while_open(self) -> AsyncIterator[trio.CancelScope]:
        """Wait until it is open; ``async with`` is given a scope that is cancelled when it closes, with the body in it."""
        await self.opened()
        with trio.CancelScope() as scope:
            async with self._watching(scope.cancel):
                yield scope

    @asynccontextmanager
    async def _watching(self, close: Callable[[], None]) -> AsyncIterator[None]:
        """Call `close` when it closes before the body ends."""

        async def watch() -> None:
            await self.closed()
            close()

        with _as_it_was_raised():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                yield
                nursery.cancel_scope.cancel()

    async def _until(self, *, is_open: bool) -> None:
        while self.is_open() is not is_open:
            change = self.next_change()
            wait_s = LOOK_EVERY_S if change is None else (change - self._clock()).total_seconds()
            await trio.sleep(min(max(wait_s, 0.0), LOOK_EVERY_S))


@contextmanager
def _as_it_was_raised() -> Iterator[None]:
    """Raise what the body raised instead of the group that a nursery makes of it: what runs beside it never fails."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
        raise error from error.__cause__
