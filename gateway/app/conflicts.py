"""Compares contents that came under one SOP Instance UID: those that differ in encoding only are no conflict.

It runs beside everything else and decides nothing on the way of an instance: where contents are not known to be the same, they
count as different. Runs on trio, what blocks on a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from gateway.codec import alike
from gateway.codec.dataset.extent import Extent
from gateway.codec.workers.pool import Pool
from gateway.core.errors import GatewayStopping, LedgerUnavailable, SpoolError
from gateway.core.files import make_private_folder
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import WakeUp
from gateway.ledger import Ledger
from gateway.ledger.received import conflicts
from gateway.ledger.received.conflicts import Pair
from gateway.spool import Spool

PAGE = 500
LOOK_AT_LEAST_S = 3600.0
"""A hint that was lost costs no more than this."""

MAX_REMEMBERED = 100_000
"""Pairs that are known to differ; forgetting them costs another comparison."""

_log = get_logger()


class Conflicts:
    """Looks at each pair of contents once. `found` may be called from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        pool: Pool,
        scratch: Path,
        *,
        settled: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`scratch` is a private folder for steps in between; `settled` is called when bytes may be released."""
        self._ledger, self._spool, self._pool, self._scratch = ledger, spool, pool, scratch
        self._settled = settled
        self._clock = clock
        self._hint = WakeUp()
        self._different: set[tuple[int, int]] = set()

    def found(self) -> None:
        """Other content came under a known SOP Instance UID. A hint."""
        self._hint.give()

    async def compare(self, older: Sequence[int]) -> None:
        """Compare these superseded contents, by their instances' ids, with what came after them: whoever asks is told how it is.

        Where it cannot be done now, they count as different, and are looked at again later.
        """
        with suppress(GatewayStopping, LedgerUnavailable, OSError):
            for pair in await trio.to_thread.run_sync(self._ledger.ask, partial(conflicts.pairs_of, older=older)):
                await trio.to_thread.run_sync(self._judge, pair)

    async def run(self) -> None:
        """Compare what there is, and again whenever a conflict was found, until cancelled."""
        while True:
            try:
                await trio.to_thread.run_sync(self._look)
            except (LedgerUnavailable, OSError) as error:
                _log.warning("conflicts_not_compared", error=str(error))
            await self._hint.wait(LOOK_AT_LEAST_S)

    def _look(self) -> None:
        after = (0, 0)
        while True:
            page = self._ledger.ask(partial(conflicts.pairs, after=after, limit=PAGE))
            for pair in page:
                after = (pair.older_id, pair.newer_id)
                try:
                    self._judge(pair)
                except GatewayStopping:
                    return
            if len(page) < PAGE:
                return

    def _judge(self, pair: Pair) -> None:
        """Compare a pair that was not compared before, and record what they are. Raises GatewayStopping."""
        if (key := (pair.older_id, pair.newer_id)) in self._different:
            return
        if self._same(pair):
            dropped = self._ledger.write(partial(conflicts.mark_same, pair=pair, now=self._clock()))
            _log.info("same_content_in_another_encoding", older=pair.older_id, newer=pair.newer_id, dropped=dropped)
            self._settled()
            return
        if len(self._different) >= MAX_REMEMBERED:
            self._different.clear()
        self._different.add(key)

    def _same(self, pair: Pair) -> bool:
        with suppress(SpoolError):
            make_private_folder(self._scratch)
            with self._spool.open(pair.older[0]) as one, self._spool.open(pair.newer[0]) as other:
                a, b = (Extent(each.fileno(), each.offset, each.length) for each in (one, other))
                sides = alike.Encoded(a, pair.older[1]), alike.Encoded(b, pair.newer[1])
                return alike.same(*sides, self._pool, folder=self._scratch)
        return False
