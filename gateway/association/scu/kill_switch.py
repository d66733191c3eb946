"""A kill switch for the associations that a thread opens: also while one connects, shakes hands or awaits its A-ASSOCIATE-AC.

Until an association is open there is no `Requestor` that could be killed, and a peer that answers nothing would hold its thread
until a deadline. Resolving a host's name is the operating system's: that alone is not broken off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Killable(Protocol):
    """A connection that another thread can end."""

    def kill(self) -> None:
        """Wake the thread that uses it. Never raises."""


class KillSwitch:
    """Ends the connections that threads open under it. `kill` may come from any thread, and is final."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._killed = False
        self._guards: set[_Guard] = set()

    @contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """Put what this thread opens inside the ``with`` under the switch, and under those that it is under already.

        A connection that is still open after the ``with`` is no longer under it.
        """
        before, guard = _guards_here(), _Guard(self)
        with self._lock:
            self._guards.add(guard)
        _here.guards = (*before, guard)
        try:
            yield
        finally:
            _here.guards = before
            with self._lock:
                self._guards.discard(guard)

    def kill(self) -> None:
        """End what is open or being opened, at once, and what is yet to be opened when it begins. Never raises."""
        with self._lock:
            self._killed = True
            for guard in self._guards:
                for connection in guard.opened:
                    connection.kill()

    def put_under(self, guard: _Guard, connection: Killable) -> None:
        """Have `kill` end `connection`, which the thread of `guard` opens."""
        with self._lock:
            guard.opened.append(connection)
            if self._killed:
                connection.kill()


class _Guard:
    """The connections that one thread opened under a switch."""

    def __init__(self, switch: KillSwitch) -> None:
        self.switch = switch
        self.opened: list[Killable] = []


_here = threading.local()


def _guards_here() -> tuple[_Guard, ...]:
    guards: tuple[_Guard, ...] = getattr(_here, "guards", ())
    return guards


def killable(connection: Killable) -> None:
    """Put `connection` under the switches of this thread; where one of them was used, it is killed at once."""
    for guard in _guards_here():
        guard.switch.put_under(guard, connection)
