"""The hints that one stage gives to the others: something came, something changed. A lost hint costs latency, never an instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.confirm import Confirmer
from gateway.core.domain import Priority
from gateway.core.tasks.wake_ups import WakeUp
from gateway.delivery import Dispatcher
from gateway.delivery.transcoding.transcoder import Transcoder
from gateway.ledger.received.instances import ArrivalOutcome, Recorded
from gateway.retrieve import Retriever


class WakeUps:
    """Carries each stage's hints to the others, from whatever thread they are given on."""

    def __init__(self) -> None:
        self.settled = WakeUp()

    def connect(
        self,
        retriever: Retriever,
        dispatcher: Dispatcher,
        confirmer: Confirmer,
        transcoder: Transcoder,
        conflict: Callable[[], None] = lambda: None,
    ) -> None:
        """Name the stages; to be called before any of them runs. `conflict` is told that other content came under a known UID."""
        self._retriever, self._dispatcher, self._confirmer, self._transcoder = retriever, dispatcher, confirmer, transcoder
        self._conflict = conflict

    def recorded(self, batch: Sequence[Recorded]) -> None:
        """Instances are recorded: their retrievals count them, their destinations are told."""
        for what in batch:
            arrival = what.arrival
            self._retriever.arrived(arrival.retrieval_id, arrival.identity.sop_instance_uid, arrival.content.length)
            if what.outcome is ArrivalOutcome.CONFLICT:
                self._conflict()
        urgent = {name for what in batch if what.arrival.priority is not Priority.LOW for name in what.queued}
        for destination in {name for what in batch for name in what.queued}:
            self._dispatcher.nudge(destination, urgent=destination in urgent)

    def turned_away(self, calling_ae: str, called_ae: str, address: str) -> None:
        """A caller was refused: a retrieval may wait for it in vain."""
        self._retriever.turned_away(calling_ae, called_ae, address)

    def deliveries_changed(self, destination: str) -> None:
        """Deliveries to `destination` were recorded: a proof may be due, bytes may be settled, more may be transcoded."""
        self._confirmer.nudge(destination)
        self._transcoder.made_room()
        self.settled.give()

    def proofs_changed(self, destination: str) -> None:
        """Deliveries were verified, and a few may have to be sent again."""
        self._dispatcher.nudge(destination, urgent=False)
        self.settled.give()

    def transcoded(self, destination: str) -> None:
        """Deliveries have the copies that they waited for, or are held for want of one."""
        self._dispatcher.nudge(destination)
        self.settled.give()
