"""Outcomes on their way into the ledger: kept until a transaction that holds them is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from gateway.ledger import Ledger
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries.claiming import Change

T = TypeVar("T")


class Outbox:
    """The outcomes at one destination that are still to be recorded. Thread-safe."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float], recorded: Callable[[Sequence[Change]], None]) -> None:
        """`recorded` is called with what has become durable, on the thread that recorded it."""
        self._ledger = ledger
        self._clock = clock
        self._recorded = recorded
        self._lock = threading.Lock()
        self._changes: list[Change] = []

    def __bool__(self) -> bool:
        """Tell whether anything waits to be recorded."""
        return bool(self._changes)

    def put(self, change: Change) -> None:
        """Keep `change` until it is recorded."""
        with self._lock:
            self._changes.append(change)

    def record(self) -> None:
        """Record what there is.

        Raises:
            LedgerUnavailable: not now; it is kept.
        """
        if self._changes:
            self.record_with(lambda _connection, _now: None)

    def record_with(self, act: Callable[[Connection, float], T]) -> T:
        """Record what there is, then `act`, in one transaction; return what `act` returned, once it is durable.

        `act` is given the transaction and the time.

        Raises:
            LedgerUnavailable: not now; what was to be recorded is kept.
        """
        with self._lock:
            changes, self._changes = self._changes, []
        now = self._clock()

        def change(connection: Connection) -> T:
            if changes:
                table.apply(connection, changes, now=now)
            return act(connection, now)

        try:
            result = self._ledger.write(change)
        except BaseException:
            with self._lock:
                self._changes[:0] = changes
            raise
        if changes:
            self._recorded(changes)
        return result
