"""A wait for a connection that another thread can end without touching the connection."""

from __future__ import annotations

import contextlib
import math
import select
import socket
from types import TracebackType
from typing import Self

_LONGEST_S = 86_400.0
"""``poll`` counts milliseconds in a C int; who waits longer waits again."""


class Waker:
    """One thread waits, any thread wakes it; a wake that comes before the wait ends it at once. A context manager."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._near.close()
        self._far.close()

    def wake(self) -> None:
        """End the wait. From any thread; after the end of the context it does nothing."""
        with contextlib.suppress(OSError):
            self._far.send(b"\0")

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        """Wait until something comes from `descriptor`, `wake` is called, or `timeout_s` (may be infinite) is over.

        Returns whether something came.
        """
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._near, select.POLLIN)
        ready = {number for number, _ in poll.poll(math.ceil(min(timeout_s, _LONGEST_S) * 1000))}
        if self._near.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._near.recv(64)
        return descriptor in ready
