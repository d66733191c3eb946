"""The recorder: what was answered 0000 gets into the ledger, in batches, off the path of the answer.

Contract. An instance that is answered 0000 is durable in the spool before, and its `Arrival` is put here. The spool alone is
enough to rebuild what the ledger says of it, so the ledger may follow:

- Arrivals are recorded in the order in which they were put, at once where nothing was under way; while instances keep coming,
  a transaction every `PACE_S` takes what came meanwhile.
- Arrivals that are not recorded when the process ends, however it ends, are adopted by `recover` at the next start.
- While the ledger cannot be written, everything is kept and tried again. Once that has gone on for `MAX_AGE_S`, or `MAX_WAITING`
  arrivals wait, `check` refuses what would come next, so that the source keeps it.
- A change that fails for a reason of its own takes no other with it: it is logged, and the bytes stay for the next start.
- After the commit, the bytes of an instance that came again are removed, once it is sure that those it rests on are there; then
  whoever waits for instances is told.
- `flush` is the barrier for everyone who concludes from the ledger what came: everything put before the call is recorded
  when it returns, or it raises.

Runs on one thread of its own, ``recorder``, from entering the context to leaving it. Leaving records what waits; where the ledger
cannot be written then, it is left for the next start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import TypeVar

from sqlalchemy import Connection

from gateway.core import metrics
from gateway.core.domain import Content
from gateway.core.errors import LedgerUnavailable, SpoolError
from gateway.core.log import get_logger
from gateway.ledger import Ledger
from gateway.ledger.received.instances import Arrival, ArrivalOutcome, Recorded, get
from gateway.ledger.received.keeping import mark_missing
from gateway.ledger.received.recording import record, record_many
from gateway.spool import Spool

_log = get_logger()

T = TypeVar("T")

_NAMED = 20
"""SOP Instance UIDs in one line of the log."""

PACE_S = 0.05
"""Between the beginnings of two transactions while instances keep coming: a transaction costs what ten instances in it do."""

MAX_BATCH = 256
"""Arrivals in one transaction: others wait for the ledger's writer too."""

MAX_WAITING = 10_000
"""Arrivals that may wait before no more are taken: some ten megabytes of memory."""

MAX_AGE_S = 30.0
"""The longest time that the ledger may take for one batch before no more instances are taken."""

FLUSH_S = 30.0
"""The longest time that a reader of what came waits for it to be recorded."""

RETRY_S = (0.1, 0.5, 2.0, 5.0)
"""Pauses before the ledger is tried again; the last one again and again."""


class Recorder:
    """Records arrivals. Thread-safe; use as a context manager."""

    def __init__(
        self, spool: Spool, ledger: Ledger, *, recorded: Callable[[Sequence[Recorded]], None] = lambda _some: None
    ) -> None:
        """Record into `ledger` what `spool` holds.

        `recorded` hears of each batch once it is durable, on the recorder's thread, and must return at once.
        """
        self._spool = spool
        self._ledger = ledger
        self._recorded = recorded
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._waiting: deque[Arrival] = deque()
        self._put = self._done = self._flushing = 0
        self._began: float | None = None
        self._next = 0.0
        self._failures = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """The number of arrivals that are not recorded yet."""
        return self._put - self._done

    def check(self) -> None:
        """Tell whether more may be taken in. Costs next to nothing.

        Raises:
            LedgerUnavailable: no: what came is not recorded in time, or the ledger is damaged or its file system full.

        """
        if self._ledger.damage is not None:
            raise self._ledger.damage
        self._ledger.check_room()
        began = self._began
        if self.waiting >= MAX_WAITING or (began is not None and time.monotonic() - began > MAX_AGE_S):
            raise LedgerUnavailable(f"{self.waiting} instances wait for the ledger")

    def put(self, arrival: Arrival) -> None:
        """Have `arrival`, whose bytes are durable, recorded."""
        with self._lock:
            self._waiting.append(arrival)
            self._put += 1
            if len(self._waiting) in (1, MAX_BATCH):
                self._work.notify()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until everything that was put before is recorded, or left for the next start for a reason of its own.

        Raises:
            LedgerUnavailable: that was not so within `timeout_s` seconds.

        """
        with self._lock:
            wanted = self._put
            if self._done >= wanted:
                return
            self._flushing += 1
            self._work.notify()
            try:
                there = self._progress.wait_for(lambda: self._done >= wanted, timeout_s)
            finally:
                self._flushing -= 1
        if not there:
            raise LedgerUnavailable(f"what came is not recorded after {timeout_s:g} seconds")

    def close(self) -> None:
        """Record what waits, then end the thread. Nothing may be put any more. Closing twice does nothing."""
        with self._lock:
            self._closing.set()
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._record(batch)
            except LedgerUnavailable as error:
                _log.warning("arrivals_left_for_next_start", count=len(batch), error=str(error))
            except Exception:  # noqa: BLE001 - the root of the thread: the others must be recorded all the same
                _log.exception("recorder_failed", count=len(batch))
            with self._lock:
                self._began = None
                self._done += len(batch)
                self._progress.notify_all()
                metrics.WAITING.set(self.waiting)

    def _take(self) -> list[Arrival]:
        """Wait until there is something to record, and take it; nothing when the recorder is to end."""
        with self._lock:
            self._work.wait_for(lambda: self._waiting or self._closing.is_set())
            self._work.wait_for(self._is_urgent, self._pause_s())
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            self._began = time.monotonic() if batch else None
            self._next = time.monotonic() + PACE_S
            return batch

    def _is_urgent(self) -> bool:
        return bool(self._flushing) or len(self._waiting) >= MAX_BATCH or self._closing.is_set()

    def _pause_s(self) -> float:
        return max(0.0, self._next - time.monotonic())

    def _record(self, batch: Sequence[Arrival]) -> None:
        self._recorded(self._settled(self._written_or_left(batch)))

    def _written_or_left(self, batch: Sequence[Arrival]) -> list[Recorded]:
        """Return what became of those of `batch` that the ledger took.

        Raises:
            LedgerUnavailable: it takes nothing, and the recorder is to end.

        """
        try:
            return self._persistently(lambda connection: record_many(connection, batch))
        except LedgerUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a fault of one must not cost the others
            if len(batch) == 1:
                _log_left(batch[0])
                return []
        return [recorded for arrival in batch for recorded in self._written_or_left([arrival])]

    def _persistently(self, change: Callable[[Connection], T]) -> T:
        """Do `change`, again and again while the ledger cannot be written and the recorder is not to end."""
        while True:
            try:
                result = self._ledger.write(change)
            except LedgerUnavailable as error:
                self._failed(error)
                if self._closing.wait(RETRY_S[min(self._failures, len(RETRY_S)) - 1]):
                    raise
            else:
                self._succeeded()
                return result

    def _failed(self, error: LedgerUnavailable) -> None:
        self._failures += 1
        if self._failures == 1:
            _log.error("ledger_unavailable", waiting=self.waiting, error=str(error))

    def _succeeded(self) -> None:
        if self._failures:
            _log.warning("ledger_available_again", waiting=self.waiting, failures=self._failures)
            self._failures = 0

    def _settled(self, batch: Sequence[Recorded]) -> list[Recorded]:
        """Let go of the bytes that nobody needs; return what became of each after that."""
        there = self._spool.found(recorded.rests_on for recorded in batch if recorded.rests_on is not None)
        settled = []
        for recorded in batch:
            try:
                known = recorded.rests_on is None or recorded.rests_on in there
                settled.append(recorded if known else rested(self._spool, self._persistently, recorded))
            except LedgerUnavailable:
                raise
            except Exception:  # noqa: BLE001 - a fault of one must not cost the others
                _log_left(recorded.arrival)
        remove_unneeded(self._spool, [one.arrival.content.location for one in settled if not one.bytes_needed])
        _count(settled)
        _log_received(settled)
        return settled


def record_spooled(spool: Spool, ledger: Ledger, arrival: Arrival, *, again: bool = True, late: bool = False) -> Recorded:
    """Record what was committed to `spool` at once, and remove its bytes again where the ledger does not need them.

    Raises:
        LedgerError: it was not recorded; the bytes are still there.

    """
    recorded = ledger.write(lambda connection: record(connection, arrival, again=again, late=late))
    recorded = rested(spool, ledger.write, recorded, again=again)
    if not recorded.bytes_needed:
        remove_unneeded(spool, [arrival.content.location])
    return recorded


def rested(
    spool: Spool, write: Callable[[Callable[[Connection], Recorded]], Recorded], recorded: Recorded, *, again: bool = True
) -> Recorded:
    """Return what became of an arrival once it is sure that the bytes are there that it rests on, its own where others are not.

    `write` carries out a change of the ledger; what it raises is raised.
    """
    while recorded.rests_on is not None and not _is_there(spool, recorded.rests_on):
        recorded = write(partial(_record_in_place_of, relied=recorded, again=again))
    return recorded


def _is_there(spool: Spool, content: Content) -> bool:
    try:
        with spool.open(content):
            return True
    except SpoolError as error:
        _log.error("spool_bytes_missing", location=content.location, reason=str(error))
        return False


def _record_in_place_of(connection: Connection, relied: Recorded, *, again: bool) -> Recorded:
    known = get(connection, relied.instance_id)
    # Another arrival may have brought its bytes meanwhile.
    if known is not None and known.content == relied.rests_on:
        mark_missing(connection, [relied.instance_id], now=relied.arrival.at)
    return record(connection, relied.arrival, again=again)


def remove_unneeded(spool: Spool, locations: Collection[str]) -> None:
    """Remove bytes that no row refers to; what cannot be removed now is met again at the next start."""
    try:
        spool.remove_all(locations)
    except SpoolError as error:
        _log.warning("spool_bytes_left", error=str(error))


def _log_left(arrival: Arrival) -> None:
    """Log the exception at hand, for whose sake an arrival is not recorded before the next start."""
    _log.exception("arrival_left_for_next_start", sop_instance_uid=arrival.identity.sop_instance_uid)


def _count(batch: Sequence[Recorded]) -> None:
    """Count a batch in the metrics."""
    for outcome, count in Counter(recorded.outcome for recorded in batch).items():
        metrics.RECEIVED.add(count, outcome=outcome.value)
    metrics.RECEIVED_BYTES.add(sum(recorded.arrival.content.length for recorded in batch))


def _log_received(batch: Sequence[Recorded]) -> None:
    """Log contents that contradict what was there, in one line, and every instance where debug events are wanted."""
    log = _log.bind()
    conflicts = [recorded.arrival for recorded in batch if recorded.outcome is ArrivalOutcome.CONFLICT]
    if conflicts:
        log.warning(
            "content_superseded",
            count=len(conflicts),
            association=conflicts[-1].provenance.association,
            sop_instance_uids=[arrival.identity.sop_instance_uid for arrival in conflicts[:_NAMED]],
        )
    for recorded in batch if log.is_enabled_for(logging.DEBUG) else ():
        arrival = recorded.arrival
        log.debug(
            "instance_received",
            association=arrival.provenance.association,
            sop_instance_uid=arrival.identity.sop_instance_uid,
            bytes=arrival.content.length,
            outcome=recorded.outcome.value,
            destinations=len(arrival.destinations),
        )
