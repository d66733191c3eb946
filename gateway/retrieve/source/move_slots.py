"""The number of studies that may be moved from a source at a time, and which of those that wait is next. Runs in trio.

A study that somebody waits for does not wait for one of a migration: where all slots are taken, the one of the lowest priority
is asked back, and whoever has it ends its C-MOVE between instances, gives the slot away, and asks for it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import trio

from gateway.core.domain import Priority


@dataclass(eq=False)
class Slot:
    """The right to move a study; `scope` is cancelled when it is asked back, and whoever has it then leaves soon."""

    priority: Priority
    number: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    asked_back: bool = False
    """Somebody more urgent waits for it."""

    def ask_back(self) -> None:
        """Have whoever has it leave."""
        self.asked_back = True
        self.scope.cancel()


@dataclass(eq=False)
class _Waiter:
    priority: Priority
    number: int
    slot: Slot | None = None
    event: trio.Event = field(default_factory=trio.Event)

    @property
    def order(self) -> tuple[int, int]:
        return -self.priority, self.number


class Slots:
    """The slots of one source."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers = count()
        self._held: set[Slot] = set()
        self._waiting: list[_Waiter] = []

    @property
    def held(self) -> int:
        """The number of slots that are taken."""
        return len(self._held)

    @asynccontextmanager
    async def take(self, priority: Priority, *, number: int | None = None) -> AsyncIterator[Slot]:
        """Have a slot inside the ``async with``: the most urgent first, then whoever came first.

        A study that gave up its slot when it was asked to keeps its place in the queue by the `number` that the slot had.
        """
        waiter = _Waiter(priority, next(self._numbers) if number is None else number)
        self._waiting.append(waiter)
        self._hand_out()
        try:
            await waiter.event.wait()
            assert waiter.slot is not None
            yield waiter.slot
        finally:
            if waiter.slot is None:
                self._waiting.remove(waiter)
            else:
                self._held.discard(waiter.slot)
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to who is next, and ask back one for each who is more urgent than one of those that have them."""
        self._waiting.sort(key=lambda waiter: waiter.order)
        while self._waiting and len(self._held) < self._total:
            waiter = self._waiting.pop(0)
            waiter.slot = Slot(waiter.priority, waiter.number)
            self._held.add(waiter.slot)
            waiter.event.set()
        for slot in asked_back(self._held, [waiter.priority for waiter in self._waiting]):
            slot.ask_back()


def asked_back(held: set[Slot], waiting: list[Priority]) -> list[Slot]:
    """Return the slots to ask back for those who wait, the most urgent of them first: pure.

    One that was asked back already serves the first who is more urgent than it. Only what is `HIGH` drives out others: a C-MOVE
    that is ended and begun anew costs the source more than waiting for its end.
    """
    chosen: list[Slot] = []
    free = sorted(held, key=lambda slot: (not slot.asked_back, slot.priority, -slot.number))
    for priority in waiting:
        if priority is not Priority.HIGH:
            break
        slot = next((slot for slot in free if slot.priority < priority), None)
        if slot is None:
            break
        free.remove(slot)
        if not slot.asked_back:
            chosen.append(slot)
    return chosen
