"""Associations of one kind with one AE that are kept open after use.

To open one costs both sides more than a small query does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from gateway.association.scu.kill_switch import killable
from gateway.association.scu.requestor import Requestor
from gateway.core.errors import AssociationAborted, AssociationEnded

T = TypeVar("T")


class AssociationPool:
    """The associations that are open and not in use. Thread-safe; blocks."""

    def __init__(self, connect: Callable[[], Requestor], *, keeps: bool = True) -> None:
        """`connect` opens one; unless it `keeps` them, each is released after use."""
        self._connect = connect
        self._keeps = keeps
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Requestor]] = []

    def ask(
        self,
        work: Callable[[Requestor], T],
        *,
        again_after: type[AssociationAborted] = AssociationEnded,
        keep: Callable[[], bool] = lambda: True,
    ) -> T:
        """Return what `work` returns for the association that was used last, or a new one; where it raises, that one is aborted.

        An association that was kept may have been ended by its peer since: after `again_after`, `work` begins once more on a new
        one. With `AssociationEnded` nothing of it was sent before. `keep` tells in the end whether the association may be kept.
        A `KillSwitch` that the thread is under ends a kept one as it does a new one.

        Raises:
            AssociationError: what associating or `work` raises; and whatever else `work` raises.
        """
        with self._lock:
            kept = self._idle.pop()[1] if self._idle else None
        if kept is not None:
            with suppress(again_after):
                return self._on(kept, work, keep)
        return self._on(self._connect(), work, keep)

    def _on(self, requestor: Requestor, work: Callable[[Requestor], T], keep: Callable[[], bool]) -> T:
        killable(requestor)
        try:
            result = work(requestor)
        except BaseException:
            requestor.abort()
            raise
        if self._keeps and keep():
            with self._lock:
                self._idle.append((time.monotonic(), requestor))
        else:
            requestor.release()
        return result

    def taken_out(self, *, idle_s: float = 0.0) -> list[Requestor]:
        """Give those away that nobody used for `idle_s`: whoever asks ends them."""
        until = time.monotonic() - idle_s
        with self._lock:
            old = [requestor for since, requestor in self._idle if since <= until]
            self._idle = [one for one in self._idle if one[0] > until]
            return old

    @property
    def empty(self) -> bool:
        """Tell whether none is kept."""
        return not self._idle
