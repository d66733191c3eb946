"""Proofs for all destinations that are asked for one: `exists` by C-FIND, `commitment` by Storage Commitment."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from gateway.association.commitment import CommitmentReport
from gateway.ledger import Ledger
from gateway.settings import Settings


def _nobody(_destination: str) -> None:
    """Tell nobody."""


class Confirmer:
    """Asks destinations for proof. `run` it in a nursery; it is also the acceptor's `CommitmentService`."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        *,
        changed: Callable[[str], None] = _nobody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is called with a destination's name when deliveries were verified or have to be sent again, on any thread.

        Raises:
            ConfigurationError: a certificate or key cannot be used.
        """
        raise NotImplementedError

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask for proofs until cancelled."""
        raise NotImplementedError

    def nudge(self, destination: str | None = None) -> None:
        """Say that something was delivered, to `destination` or anywhere. Thread-safe; a hint."""
        raise NotImplementedError

    def report(self, report: CommitmentReport) -> int:
        """Take the N-EVENT-REPORT of a destination and return the status to answer (PS3.4 §J.3.3). On any thread."""
        raise NotImplementedError
