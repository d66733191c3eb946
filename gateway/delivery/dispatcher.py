"""All destinations at work: a lane each, on trio, none waiting for another."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import trio

from gateway.core.log import get_logger
from gateway.delivery.destination import Destination
from gateway.delivery.journal import Note, Sent
from gateway.delivery.lanes.circuit import CircuitView
from gateway.delivery.lanes.lane import BREAK_OFF_S, Lane
from gateway.ledger import Ledger
from gateway.ledger.deliveries import claiming as table
from gateway.ledger.deliveries import mending

LANE_PAUSE_S = 5.0
"""The rest of a destination after a fault of our own ended its lane."""

_log = get_logger()


def _nobody(_destination: str) -> None:
    """Tell nobody."""


def _nothing(_destination: str, _studies: Mapping[str, Sent]) -> None:
    """Note nothing."""


class Dispatcher:
    """Delivers what the ledger owes. `run` it in a nursery; each method says from where it may be called."""

    def __init__(
        self,
        ledger: Ledger,
        destinations: Sequence[Destination],
        *,
        changed: Callable[[str], None] = _nobody,
        to_transcode: Callable[[], None] = lambda: None,
        sent: Note = _nothing,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is called with a destination's name whenever deliveries to it were recorded, on any thread.

        `to_transcode` is called, on any thread, when some of them have to be transcoded first.

        `sent` is told, on any thread, what each batch brought there (`gateway.delivery.journal`). `clock` gives UTC seconds since
        the epoch, as the ledger keeps them.
        """
        self._ledger = ledger
        self._clock = clock
        self._lanes = {
            destination.name: Lane(destination, ledger, changed=changed, to_transcode=to_transcode, sent=sent, clock=clock)
            for destination in destinations
        }
        self._running = False
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover what was being sent, then deliver until cancelled or drained. Cancelling breaks off what is being sent.

        Deliveries to destinations that are not configured any more are held until they are.

        Raises:
            LedgerUnavailable: the ledger cannot take the recovery.
        """
        try:
            await trio.to_thread.run_sync(self._recover)
            await trio.to_thread.run_sync(self._adapt)
            self._running = True
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for lane in self._lanes.values():
                        nursery.start_soon(self._keep, lane)
                    task_status.started()
        finally:
            self._running = False
            self._ended.set()

    async def drain(self, timeout_s: float) -> bool:
        """Begin no further instance and wait for those at hand; after `timeout_s` break them off. True where none had to be.

        Instances that were claimed and not sent are pending again. Then `run` returns. From the trio thread.
        """
        if not self._running:
            return True
        for lane in self._lanes.values():
            lane.stop()
        with trio.move_on_after(timeout_s):
            await self._ended.wait()
            return True
        for lane in self._lanes.values():
            lane.break_off()
        with trio.move_on_after(BREAK_OFF_S):
            await self._ended.wait()
        self._scope.cancel()
        await self._ended.wait()
        return False

    def nudge(self, destination: str | None = None, *, urgent: bool = True) -> None:
        """Say that there may be something to deliver, at `destination` or anywhere. From any thread; a hint.

        Without `urgent` it may wait for a moment, for more to be sent with it.
        """
        for lane in self._meant(destination):
            lane.nudge(urgent=urgent)

    def retry(self, destination: str | None = None) -> None:
        """Try again at once even where the circuit is open, because a person says so. From any thread.

        The presentation contexts that a destination refused are proposed anew.
        """
        for lane in self._meant(destination):
            lane.destination.forget_refusals()
            lane.probe_now()

    def circuits(self) -> Mapping[str, CircuitView]:
        """Return how each destination's circuit stands. From any thread."""
        return {name: lane.circuit() for name, lane in self._lanes.items()}

    def _meant(self, destination: str | None) -> list[Lane]:
        if destination is None:
            return list(self._lanes.values())
        return [lane for name, lane in self._lanes.items() if name == destination]

    def _recover(self, destination: str | None = None) -> None:
        now = self._clock()
        recovered = self._ledger.write(lambda connection: table.recover_sending(connection, now=now, destination=destination))
        if recovered:
            _log.info("sending_recovered", deliveries=recovered, destination=destination)

    def _adapt(self) -> None:
        now = self._clock()
        proofs = {name: lane.destination.instant_proof for name, lane in self._lanes.items()}
        adapted = self._ledger.write(lambda connection: mending.adapt(connection, proofs, now=now))
        if any(adapted.values()):
            _log.warning("configuration_changed", **adapted)

    async def _keep(self, lane: Lane) -> None:
        """Run a lane, and again where a fault of our own ends it, so that one destination never takes the others with it."""
        while True:
            try:
                await lane.run()
            except Exception as error:  # noqa: BLE001 - the root of the lane's task
                _log.exception("lane_failed", destination=lane.destination.name, error=type(error).__name__)
                await trio.sleep(LANE_PAUSE_S)
                await trio.to_thread.run_sync(functools.partial(self._recover, lane.destination.name))
            else:
                return
