"""A sync between shelves, with a real ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.core.domain import DeliveryState, InstanceIdentity
from gateway.jobs.sync.context import SyncContext
from gateway.jobs.sync.look import LookResult, look
from gateway.jobs.sync.memory import Memory
from gateway.jobs.sync.plan import Plan
from gateway.jobs.sync.window import StudyWindow
from gateway.ledger.database import transitions
from tests.jobs.sync.places import Shelf
from tests.support.instances import Store, store


@dataclass
class Desk:
    """A source, destinations, what is remembered between looks, and the state folder of a gateway."""

    plan: Plan
    source: Shelf
    destinations: dict[str, Shelf]
    kept: Store
    memories: dict[str, Memory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = SyncContext(
            retriever=cast(Any, None),
            ledger=self.kept.ledger,
            barrier=lambda: None,
            source=lambda _name: self.source,
            destination=lambda name: self.destinations[name],
            verified=lambda name: self.destinations[name],
        )

    @property
    def destination(self) -> Shelf:
        """The first destination."""
        return next(iter(self.destinations.values()))

    async def look(self) -> LookResult:
        """Take a look."""
        return await look(self.plan, self.context, self.memories)

    async def settled(self) -> LookResult:
        """Take two looks, so that everything has stopped growing."""
        await self.look()
        return await self.look()

    def received(self, study: str, series: str, number: int, to: str | None, state: DeliveryState) -> None:
        """Have an instance here, with a delivery to `to` in `state`, unless `to` is None."""
        identity = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", f"{series}.{number}", "1.2.840.10008.1.2.1", study, series)
        self.kept.add(identity, f"{series}.{number}".encode(), *([to] if to else []))
        if to is None:
            return
        (row,) = [row for row in self.kept.rows(to=to) if row.sop_instance_uid == identity.sop_instance_uid]
        for new in _ways_to(state):
            change = partial(transitions.move, delivery_ids=[row.id], new=new, now=time.time())
            self.kept.ledger.write(change)


def _ways_to(state: DeliveryState) -> list[DeliveryState]:
    match state:
        case DeliveryState.PENDING:
            return []
        case DeliveryState.DROPPED:
            return [DeliveryState.HELD, DeliveryState.DROPPED]
        case DeliveryState.HELD:
            return [DeliveryState.HELD]
        case _:
            return [DeliveryState.SENDING, state]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """A function that gives a desk: `desk("a", "b", selection=…)`."""
    with store(tmp_path / "state") as kept:

        def make(*destinations: str, **plan: Any) -> Desk:
            names = destinations or ("a",)
            made = replace(Plan("day", "archive", names, window=StudyWindow()), **plan)
            return Desk(made, Shelf("archive"), {name: Shelf(name) for name in names}, kept)

        yield make
