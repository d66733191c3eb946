"""Starting the work that the gateway does by itself, where it may begin, and beginning it again after a failure. Runs in trio.

Failed work is logged and tried again with a growing pause; work that ended the process in the middle at its last two starts
(`gateway.ledger.jobs.starts`) waits for a person instead, since the third start would end reception once more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gateway.core.backoff import doubling_s
from gateway.core.errors import GatewayStopping, JobFailed, LedgerError
from gateway.core.log import get_logger
from gateway.ledger import Ledger
from gateway.ledger.jobs import starts

log = get_logger()

FIRST_S, LONGEST_S = 5.0, 600.0
"""The pause after a first failure, and the longest one, in seconds."""

WELL_S = 1800.0
"""The run time after which a failure counts as the first one."""

RECORD_S = 10.0
"""The longest time that recording an end may take."""


class Starts:
    """Counts the starts of what the configuration asks for, each by its name (``sync NAME``, ``compare NAME``)."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._clock = clock
        self._parked: dict[str, trio.Event] = {}
        self._counted: set[str] = set()

    @property
    def parked(self) -> tuple[str, ...]:
        """Return the names of what waits for a person."""
        return tuple(self._parked)

    async def begin(self, name: str) -> None:
        """Count a start of `name`; where the last ones came to no end, wait until a person resumes it.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        known = await trio.to_thread.run_sync(self._ledger.ask, partial(starts.get, name=name))
        if known.parked:
            log.error("not_begun_again", what=name, ended_the_gateway=known.count)
            self._parked[name] = trio.Event()
            try:
                await self._parked[name].wait()
            finally:
                del self._parked[name]
        change = partial(starts.begin, name=name, by_itself=not known.parked, now=self._clock())
        await trio.to_thread.run_sync(self._ledger.write, change)
        self._counted.add(name)

    async def end(self, name: str, *, error: str = "") -> None:
        """Count a start no more: it ended in order, or goes well. Never raises; also when cancelled."""
        if name not in self._counted:
            return
        self._counted.discard(name)
        await record_end(self._ledger, name, error=error, now=self._clock())

    def resume(self, name: str) -> bool:
        """Begin what waits for a person; False where nothing of that name does."""
        waiting = self._parked.get(name)
        if waiting is not None:
            waiting.set()
        return waiting is not None


async def record_end(ledger: Ledger, name: str, *, error: str, now: float) -> None:
    """Record that `name` came to an end, and what it failed with. Never raises; also when cancelled."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + RECORD_S):
        try:
            await trio.to_thread.run_sync(ledger.write, partial(starts.end, name=name, error=error, now=now))
        except LedgerError as unwritten:
            log.warning("end_not_recorded", what=name, error=str(unwritten))


async def keep(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run `run` to its end, and again after a failure: what a peer or a file does to one of our looks costs that look only."""
    failures = 0
    while True:
        began = trio.current_time()
        try:
            await run()
        except GatewayStopping:
            return
        except Exception as error:  # the root of a task
            failures = 1 if trio.current_time() - began > WELL_S else failures + 1
            pause_s = doubling_s(FIRST_S, LONGEST_S, failures)
            log.exception("look_failed", what=name, error=str(JobFailed.of(error)), retry_in_s=pause_s)
            await trio.sleep(pause_s)
        else:
            return
