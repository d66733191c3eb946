"""Asking a source by C-MOVE for a single instance that is captured (`gateway.retrieve.single.captures`). Runs in trio.

A source that does not say for which C-MOVE it sends cannot be asked so: what it sent is taken in, since it may be anybody's; that
is learned, and no more is asked of it.
"""

from __future__ import annotations

import time
from functools import partial

import trio

from gateway.association.dimse.services import StorageService
from gateway.association.scu.requestor import next_message_id
from gateway.core.domain import Priority
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import Pulse
from gateway.ledger.peers import learned
from gateway.retrieve import listing
from gateway.retrieve.arrivals.correlate import Watch
from gateway.retrieve.arrivals.quiet import settle
from gateway.retrieve.context import RetrieveContext, Source
from gateway.retrieve.operations.c_get import Heard
from gateway.retrieve.recovery import End, Patience, Target
from gateway.retrieve.single.captures import Capture
from gateway.retrieve.source.call import Move, Moved
from gateway.retrieve.verdict import notes

log = get_logger()

ANONYMOUS = "the source does not say for which C-MOVE it sends, so that what comes cannot be told from what others send"


class _Asking:
    """One instance being asked for."""

    def __init__(self, context: RetrieveContext, source: Source, target: Target, storage: StorageService) -> None:
        self._context = context
        self._source = source
        self._target = target
        self._heard = Heard(storage)
        self._signal = Pulse()
        self.watch = Watch(0, source.name, self._signal.give, flowed_at=source.flowed_at)
        self.capture = Capture(source.name, target.uids[0], next_message_id(), self._heard, self._came)

    def _came(self) -> None:
        """Note the arrival; on an association's thread."""
        self.watch.arrivals += 1
        self.watch.last_arrival = self.watch.last_new = time.monotonic()
        self.watch.nudge()

    async def run(self) -> Moved:
        """Ask, again and again while the source is too busy; return how the last C-MOVE ended."""
        captures, attempt = self._context.arrivals.captures, 0
        captures.open(self.capture)
        try:
            while True:
                attempt += 1
                moved = await self._once()
                pause = self._context.backoff.delay(attempt, self._context.jitter()) if moved.end is End.BUSY else None
                if pause is None or self.capture.came:
                    return moved
                await trio.sleep(pause)
        finally:
            captures.close(self.capture)

    async def _once(self) -> Moved:
        identifier, destination = listing.move_identifier(self._target), self._context.ae_title
        number, table = self.capture.message_id, self._source.table
        move = Move(
            self._source.associations,
            lambda requestor: requestor.move(identifier, destination_ae=destination, message_id=number),
            message_id=number,
            watch=self.watch,
            heard=lambda: self._heard.last,
        )
        moved = await move.result(self._source.retrieving, table.progress_timeout_s)
        await settle(
            self.watch,
            self._signal,
            Patience(table.settle_s, table.progress_timeout_s),
            missing=lambda: 0 if self.capture.came else 1,
            claims_more=lambda: moved.claimed > 0,
            asynchronous=self._source.asynchronous,
            disproved=False,
        )
        return moved


async def capture(context: RetrieveContext, source: Source, target: Target, storage: StorageService) -> str:
    """Ask `source` for the one instance of `target`, and hand it to `storage`; return why it did not come, nothing where it did.

    It takes a slot of the source, after all else that waits for one.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    if source.anonymous:
        return ANONYMOUS
    asking = _Asking(context, source, target, storage)
    wanted = asking.capture
    async with source.moves.take(Priority.LOW), source.orders.take(source.order):
        moved = await asking.run()
    if wanted.came:
        return ""
    log.info("not_captured", sop_instance_uid=wanted.sop_instance_uid, source=source.name, end=str(moved.end))
    if wanted.anonymous and moved.end is End.ANSWERED and not moved.failed:
        source.anonymous = True
        await context.remember(source, learned.ANONYMOUS, "yes")
        return ANONYMOUS
    words = notes.trouble(moved, asking.watch, partial(context.registration, source.table))
    return next(filter(None, words), "it did not come by C-MOVE")
