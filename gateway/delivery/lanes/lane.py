"""One destination at work, as trio sees it: starts its crew of threads, hears how it ends, and ends it within a deadline.

Nothing here waits for another destination, and nothing on the way of an instance waits for trio.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from gateway.core.errors import LedgerUnavailable
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import ThreadEvent
from gateway.delivery.destination import Destination
from gateway.delivery.journal import Note
from gateway.delivery.lanes.circuit import CircuitView
from gateway.delivery.lanes.crew import Crew
from gateway.ledger import Ledger

BREAK_OFF_S = 2.0
"""The longest time that threads may take to come back after their sessions were killed."""

_log = get_logger()


class Lane:
    """The way to one destination. `run` belongs to trio; the other methods may be called from any thread."""

    def __init__(
        self,
        destination: Destination,
        ledger: Ledger,
        *,
        changed: Callable[[str], None],
        to_transcode: Callable[[], None],
        sent: Note,
        clock: Callable[[], float],
    ) -> None:
        self.destination = destination
        self._make_crew = partial(Crew, destination, ledger, changed=changed, to_transcode=to_transcode, sent=sent, clock=clock)
        self._stopping = False
        self._crew = self._make_crew()

    async def run(self) -> None:
        """Deliver until stopped; cancelled, break off what is being sent. It may be run again after it has failed.

        Raises:
            Exception: the fault of our own that ended it.
        """
        self._crew = crew = self._make_crew(circuit=self._crew.circuit)
        if self._stopping:
            return
        over, ended = ThreadEvent(), ThreadEvent()
        crew.start(over=over.set, ended=ended.set)
        try:
            await over.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self._end(crew, ended)
        if crew.failure is not None:
            raise crew.failure

    def nudge(self, *, urgent: bool = True) -> None:
        """There may be something to do. A hint: it is lost while the lane does not run, and not missed."""
        self._crew.nudge(urgent=urgent)

    def probe_now(self) -> None:
        """Try the destination at once even where the circuit is open."""
        self._crew.probe_now()

    def circuit(self) -> CircuitView:
        """Return how the circuit stands."""
        return self._crew.view()

    def stop(self) -> None:
        """Begin nothing more; `run` returns once the instances at hand are done."""
        self._stopping = True
        self._crew.stop()

    def break_off(self) -> None:
        """Break off the instances at hand."""
        self._crew.break_off()

    async def _end(self, crew: Crew, ended: ThreadEvent) -> None:
        """Wait for the crew to end, broken off where it has not ended; what does not come back in time is left behind."""
        if ended.is_set():
            return
        crew.cancel()
        with trio.move_on_after(BREAK_OFF_S):
            await ended.wait()
            return
        with trio.move_on_after(BREAK_OFF_S):
            try:
                await trio.to_thread.run_sync(crew.give_up, abandon_on_cancel=True)
            except LedgerUnavailable as error:
                _log.warning("ledger_unavailable", destination=self.destination.name, error=str(error))
