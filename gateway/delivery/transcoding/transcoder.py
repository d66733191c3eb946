"""Transcoding of deliveries that need another transfer syntax, for all destinations, while everything else goes on.

Sessions report what has to be transcoded; it then waits in the ledger, deferred, where no claim meets it. Threads of this module
take it from there, make a copy (`copies`), and make it due. An instance that several destinations want in the same transfer
syntax is transcoded once. No more is made ahead than a destination takes in a short while, so that one that is down costs the
others nothing.

The results of transcoding an instance are judged here: where a transfer syntax cannot hold it, the next one that the
destination accepts is tried, its own among them; where the codec fails, it goes as it is if it may, else it is held with the
reason; and where the proof of the pixels fails, it is held. Pixels are encoded and decoded in child processes
(`gateway.codec.workers.pool`).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest

import trio

from gateway.codec.dataset.extent import Extent
from gateway.codec.policy import Decision, Hold, SendAsIs, TranscodeTo
from gateway.codec.transcode import transcode
from gateway.codec.workers.pool import Pool
from gateway.core.domain import Consignment
from gateway.core.errors import (
    CodecFailed,
    GatewayStopping,
    LedgerUnavailable,
    NotTranscodable,
    PixelsDiffer,
    SpoolIOError,
    SpoolMissing,
)
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import ThreadEvent
from gateway.delivery.destination import DAMAGED, ContentStore
from gateway.delivery.forms import Forms
from gateway.delivery.transcoding.copies import Copies, Key, key_of
from gateway.delivery.transcoding.tasks import Job, jobs_of, within
from gateway.dicom.syntaxes import syntax
from gateway.ledger import Ledger
from gateway.ledger.deliveries import transcoding
from gateway.spool.content import digest_of

AHEAD_BYTES = 128 * 1024 * 1024
"""The bound on stored data transcoded ahead for a destination, counted until its delivery; one instance may always be ahead."""

TIDY_S = 1.0
"""After something was delivered, copies that nobody is owed any more are removed this soon at the latest."""

LOOK_AT_MOST = 32
"""Deliveries of a destination that are taken from the ledger at a time."""

LONGEST_SLEEP_S = 60.0
"""A lost hint costs no more than this."""

PAUSE_S = 2.0
"""After a disk or a ledger that could not take something."""

AGAIN_S = 30.0
"""An instance that could not be read or written this time is looked at again after this."""

STOP_S = 10.0

_log = get_logger()


class Transcoder:
    """Transcodes for the destinations whose `forms` it is given. `run` belongs to trio; `nudge` may be called from any thread."""

    def __init__(
        self,
        ledger: Ledger,
        store: ContentStore,
        copies: Copies,
        pool: Pool,
        forms: Mapping[str, Forms],
        *,
        changed: Callable[[str], None],
        has_room: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`changed` is told a destination's name when deliveries to it became due or were held, on any thread.

        `has_room` tells whether the disk may take more; `clock` gives UTC seconds since the epoch.
        """
        self._ledger = ledger
        self._store = store
        self._copies = copies
        self._pool = pool
        self._forms = forms
        self._changed = changed
        self._has_room = has_room
        self._clock = clock
        self._condition = threading.Condition()
        self._queue: deque[Job] = deque()
        self._busy: dict[Key, Job] = {}
        self._look_at = 0.0
        self._looking = False
        self._left = False
        """Something waits that was not taken for want of room."""

        self._stopping = False
        self._failure: Exception | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Transcode until cancelled; what is at hand then is begun anew at the next start.

        Raises:
            LedgerUnavailable, OSError: it cannot begin.
            Exception: the fault of our own that ended it.
        """
        await trio.to_thread.run_sync(self._begin)
        over = ThreadEvent()

        def work() -> None:
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - the root of a thread: `run` raises it
                self._failure = error
                over.set()

        # One more than there are workers, so that none of them waits while what it made is written and recorded.
        names = [f"transcode-{number}" for number in range(self._pool.workers + 1)]
        threads = [threading.Thread(target=work, name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        task_status.started()
        try:
            await over.wait()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._end, threads)
        if self._failure is not None:
            raise self._failure

    def nudge(self) -> None:
        """There may be something to transcode. A hint."""
        with self._condition:
            self._look_at = 0.0
            self._condition.notify()

    def made_room(self) -> None:
        """Look for room once copies may have been delivered. A hint; costs nothing where there are no copies and nothing waits."""
        if self._left:
            self.nudge()
        elif self._copies.any():
            with self._condition:
                self._look_at = min(self._look_at, time.monotonic() + TIDY_S)
                self._condition.notify()

    def _begin(self) -> None:
        self._copies.begin()
        waited = self._ledger.write(lambda connection: transcoding.start_over(connection, now=self._clock()))
        if waited:
            _log.info("transcoding_begins_anew", deliveries=waited)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._pool.close()
        deadline = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._carry_out(job, frozenset())
            except GatewayStopping:
                return
            except LedgerUnavailable as error:
                # It still waits, and is met again.
                self._postponed(error)
            finally:
                self._done(job)

    def _done(self, job: Job) -> None:
        with self._condition:
            if self._busy.pop(job.key).has_followers:
                self._look_at = 0.0
                self._condition.notify()

    def _next(self) -> Job | None:
        """Wait for something to do; None once it is to stop."""
        while True:
            with self._condition:
                while not (self._stopping or self._queue or self._may_look()):
                    self._condition.wait(None if self._looking else self._look_at - time.monotonic())
                if self._stopping:
                    return None
                if self._queue:
                    return self._queue.popleft()
                self._looking, self._look_at = True, time.monotonic() + LONGEST_SLEEP_S
            self._look()

    def _may_look(self) -> bool:
        return not self._looking and self._look_at <= time.monotonic()

    def _look(self) -> None:
        jobs: list[Job] = []
        try:
            jobs = self._found()
        finally:
            with self._condition:
                self._looking = False
                self._take(jobs)

    def _take(self, jobs: Iterable[Job]) -> None:
        """Queue what nobody works on yet, and have others help; once that is done, there may be more."""
        new = []
        for job in jobs:
            busy = self._busy.setdefault(job.key, job)
            if busy is job:
                new.append(job)
            else:
                busy.has_followers |= not job.ids <= busy.ids
        self._queue.extend(new)
        if new:
            self._look_at = 0.0
        self._condition.notify_all()

    def _found(self) -> list[Job]:
        """Return what waits and may be made now, a destination at a time, so that each gets its share."""
        try:
            if not self._has_room():
                self._rest()
                return []
            with self._ledger.read() as connection:
                copied = transcoding.copied(connection)
                settled = transcoding.settled(connection, self._copies.instances())
                room = dict.fromkeys(self._forms, AHEAD_BYTES)
                for each in copied:
                    if each.destination in room:
                        room[each.destination] -= each.content.length
                waiting = {name: transcoding.waiting(connection, name, limit=LOOK_AT_MOST) for name in self._forms}
        except (LedgerUnavailable, SpoolIOError) as error:
            self._postponed(error)
            return []
        at_work: set[int] = set()
        with self._condition:
            for job in self._busy.values():
                at_work |= job.ids
                for name in job.destinations:
                    room[name] -= job.content.length
        waiting = {name: [each for each in some if each.delivery_id not in at_work] for name, some in waiting.items()}
        found = [within(some, room[name]) for name, some in waiting.items()]
        self._left = sum(map(len, found)) < sum(map(len, waiting.values()))
        wanted = {key_of(each.content, each.stored, each.sent_as) for each in copied}
        self._copies.keep_only(lambda key: key in wanted or self._works_on(key), settled)
        return jobs_of(each for each in chain.from_iterable(zip_longest(*found)) if each is not None)

    def _works_on(self, key: Key) -> bool:
        """Tell whether a copy of that content is being made: what was made a moment ago may not be recorded yet."""
        with self._condition:
            return any(key[:-1] == busy[:-1] for busy in self._busy)

    def _postponed(self, error: Exception) -> None:
        _log.warning("transcoding_postponed", error=type(error).__name__, detail=str(error))
        self._rest()

    def _rest(self) -> None:
        with self._condition:
            self._look_at = time.monotonic() + PAUSE_S

    def _carry_out(self, job: Job, unsuitable: frozenset[str]) -> None:
        """Transcode, and say what follows for its deliveries; `unsuitable` are transfer syntaxes that were tried in vain."""
        try:
            self._make(job)
        except NotTranscodable as error:
            self._otherwise(job, unsuitable | {job.target}, str(error))
        except CodecFailed as error:
            self._as_it_is(job, f"it cannot be transcoded into {syntax(job.target).name}: {error}")
        except PixelsDiffer as error:
            self._hold(job, f"the proof failed that nothing was lost by transcoding into {syntax(job.target).name}: {error}")
        except SpoolMissing as error:
            self._hold(job, f"bytes missing: {error}", bytes_gone=True)
        except (SpoolIOError, OSError) as error:
            # Others are not to wait behind it.
            self._postponed(error)
            self._record(job, partial(transcoding.ready, sent_as=None, reason=f"waits: {error}", pause_s=AGAIN_S))
        except GatewayStopping:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an instance does to the codec, it costs that instance
            _log.exception("transcoding_failed", sop_instance_uid=job.consignments[0].identity.sop_instance_uid)
            self._hold(job, f"it cannot be transcoded into {syntax(job.target).name}: internal error {type(error).__name__}")
        else:
            self._ready(job, job.target, None)

    def _make(self, job: Job) -> None:
        """Have a copy in the target's transfer syntax, made now where there is none."""
        if self._copies.find(job.content, job.stored, job.target) is not None:
            return
        began = time.monotonic()
        allow_lossy = all(self._forms[each.destination].allow_decompressed_lossy for each in job.consignments)
        with self._store.open(job.content) as source:
            extent = Extent(source.fileno(), source.offset, source.length)
            if digest_of(extent.fd, extent.offset, extent.length) != job.content.digest:
                raise SpoolMissing(DAMAGED)
            frames = 0

            def write(descriptor: int) -> int:
                nonlocal frames
                made = transcode(
                    extent,
                    job.stored,
                    job.target,
                    descriptor,
                    self._pool,
                    allow_decompressed_lossy=allow_lossy,
                    folder=self._copies.folder,
                )
                frames = made.frames
                return made.length

            copy = self._copies.make(job.content, job.stored, job.target, write, instance_id=job.consignments[0].instance_id)
        _log.debug(
            "transcoded",
            sop_instance_uid=job.consignments[0].identity.sop_instance_uid,
            stored=job.stored,
            sent_as=job.target,
            frames=frames,
            stored_bytes=job.content.length,
            size_bytes=copy.length,
            duration_s=round(time.monotonic() - began, 3),
        )

    def _otherwise(self, job: Job, unsuitable: frozenset[str], why: str) -> None:
        """Go on with the next best transfer syntax of each destination."""
        for decision, some in self._decided(job, unsuitable).items():
            part = Job(job.target, tuple(some))
            match decision:
                case TranscodeTo(target):
                    self._carry_out(Job(target, part.consignments), unsuitable)
                case SendAsIs():
                    self._ready(part, job.stored, f"sent as it is: {why}")
                case Hold(reason):
                    self._hold(part, f"{why}; {reason}")

    def _as_it_is(self, job: Job, why: str) -> None:
        """Send as they are those that may be sent so, and hold the others."""
        everything_else = frozenset({*self._targets(job)} - {job.stored})
        for decision, some in self._decided(job, everything_else).items():
            part = Job(job.target, tuple(some))
            if isinstance(decision, SendAsIs):
                self._ready(part, job.stored, f"sent as it is: {why}")
            else:
                self._hold(part, why)

    def _targets(self, job: Job) -> set[str]:
        forms = {self._forms[each.destination] for each in job.consignments}
        return {target for each in forms for target in each.can.encodable | each.can.decodable}

    def _decided(self, job: Job, unsuitable: frozenset[str]) -> dict[Decision, list[Consignment]]:
        decided = defaultdict(list)
        for each in job.consignments:
            decided[self._forms[each.destination].otherwise(each, unsuitable)].append(each)
        return decided

    def _ready(self, job: Job, sent_as: str, reason: str | None) -> None:
        self._record(job, partial(transcoding.ready, sent_as=sent_as, reason=reason))

    def _hold(self, job: Job, reason: str, *, bytes_gone: bool = False) -> None:
        identity = job.consignments[0].identity
        _log.warning("not_transcoded", sop_instance_uid=identity.sop_instance_uid, destinations=job.destinations, reason=reason)
        self._record(job, partial(transcoding.hold, reason=reason, bytes_gone=bytes_gone))

    def _record(self, job: Job, change: Callable[..., int]) -> None:
        ids = sorted(job.ids)
        self._ledger.write(lambda connection: change(connection, ids, now=self._clock()))
        for destination in job.destinations:
            self._changed(destination)
