"""Word to a run of trio from any thread. Each class is made on the trio thread; after the run it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


def tell_trio(token: trio.lowlevel.TrioToken, function: Callable[[], object], *, idempotent: bool = True) -> bool:
    """Have the run call `function`, once where it is told several times before that; False where the run is over."""
    try:
        token.run_sync_soon(function, idempotent=idempotent)
    except trio.RunFinishedError:
        return False
    return True


class ThreadEvent:
    """An event that any thread may set, once and for all."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self.is_set = self._event.is_set
        self.wait = self._event.wait

    def set(self) -> None:
        """Wake everyone who waits, now or later. Thread-safe."""
        tell_trio(self._token, self._event.set)


class WakeUp:
    """Wakes one trio task that has something to look for; several hints before it looks are one."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def give(self) -> None:
        """Say that there may be something to do. Thread-safe."""
        tell_trio(self._token, self._set)

    def _set(self) -> None:
        self._event.set()

    async def wait(self, at_most_s: float) -> None:
        """Wait for a hint since the last `wait`, or for `at_most_s`."""
        with trio.move_on_after(at_most_s):
            await self._event.wait()
        self._event = trio.Event()


class Pulse:
    """Wakes whoever waits, as often as it is given."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._listeners = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Wait within this block only: a pulse that is given outside of it wakes nobody, and costs next to nothing."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    def give(self) -> None:
        """Wake everyone who waits now. Thread-safe."""
        if self._listeners:
            tell_trio(self._token, self._fire)

    async def wait(self) -> None:
        """Wait until it is given."""
        await self._event.wait()

    def _fire(self) -> None:
        self._event.set()
        self._event = trio.Event()
