"""Destinations that do as a test says, and what a dispatcher's tests wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.association.dimse.statuses import store_status
from gateway.config.settings import RetryTable
from gateway.core.domain import Consignment, Proof, Status
from gateway.core.schedule import Schedule
from gateway.core.throttle import Throttle
from gateway.delivery.destination import Outcome, OutcomeKind

FAST = RetryTable(attempts=3, first_s=0.05, max_s=0.1)


@dataclass
class Scripted:
    """A destination whose every answer a test decides. `answer` is called on the session's thread for each instance."""

    name: str
    answer: Callable[[Consignment], Outcome] = lambda item: Outcome(item.delivery_id, OutcomeKind.ANSWERED, status=0)
    connect: Callable[[], None] = lambda: None
    workers: int = 1
    idle_close_s: float = 0.2
    retry: RetryTable = FAST
    hours: Schedule | None = None
    throttle: Throttle | None = None
    instant_proof: Proof | None = Proof.STATUS
    batches: list[list[str]] = field(default_factory=list)
    closed: int = 0
    forgot: int = 0
    killed: threading.Event = field(default_factory=threading.Event)

    def judge(self, status: int) -> Status:
        return store_status(status)

    def open(self) -> ScriptedSession:
        return ScriptedSession(self)

    def tidy(self) -> None:
        """Nothing is left."""

    def forget_refusals(self) -> None:
        self.forgot += 1

    @property
    def delivered(self) -> list[str]:
        return [uid for batch in self.batches for uid in batch]


class ScriptedSession:
    def __init__(self, destination: Scripted) -> None:
        self.destination = destination
        self.stopped = threading.Event()

    def deliver(self, batch: Sequence[Consignment], report: Callable[[Outcome], bool]) -> None:
        self.destination.connect()
        done: list[str] = []
        self.destination.batches.append(done)
        for item in batch:
            if self.stopped.is_set():
                return
            go_on = report(self.destination.answer(item))
            done.append(item.identity.sop_instance_uid)
            if not go_on:
                return

    def stop(self) -> None:
        self.stopped.set()

    def kill(self) -> None:
        self.stopped.set()
        self.destination.killed.set()

    def close(self) -> None:
        self.destination.closed += 1


def states_are(store, *expected, to=None):
    return lambda: store.states(to=to) == list(expected)
