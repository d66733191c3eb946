"""All destinations at work: a lane each, on trio, none waiting for another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import trio

from gateway.delivery.circuit import CircuitView
from gateway.delivery.destination import Destination
from gateway.ledger import Ledger


def _nobody(_destination: str) -> None:
    """Tell nobody."""


class Dispatcher:
    """Delivers what the ledger owes. `run` it in a nursery; everything else is said under its methods."""

    def __init__(
        self,
        ledger: Ledger,
        destinations: Sequence[Destination],
        *,
        changed: Callable[[str], None] = _nobody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is called with a destination's name whenever deliveries to it were recorded, on any thread."""
        raise NotImplementedError

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover what was being sent, then deliver until cancelled or drained. Cancelling breaks running instances off."""
        raise NotImplementedError

    async def drain(self, timeout_s: float) -> bool:
        """Begin no further instance and wait for those at hand; after `timeout_s` break them off. True where none had to be.

        What was claimed and not sent is pending again. `run` returns.
        """
        raise NotImplementedError

    def nudge(self, destination: str | None = None) -> None:
        """Say that there may be something to deliver, at `destination` or anywhere. Thread-safe; a hint."""
        raise NotImplementedError

    def retry(self, destination: str | None = None) -> None:
        """Try again at once even where the circuit is open, because a person says so. Thread-safe."""
        raise NotImplementedError

    def circuits(self) -> Mapping[str, CircuitView]:
        """Return how each destination's circuit stands. From the trio thread."""
        raise NotImplementedError
