"""One destination that is asked for proof: waits until studies are quiet there, asks, and records what the answer means."""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
import trio
from sqlalchemy import Connection

from gateway.association.commitment import CommitmentReport, InstanceReference
from gateway.confirm import plan
from gateway.confirm.peer import CannotAnswer, Peer
from gateway.domain import Proof
from gateway.errors import AssociationError, LedgerUnavailable
from gateway.ledger import Ledger, commitments, learned, proofs
from gateway.ledger.proofs import Unverified, WaitingStudy

NO_FIND = "answers_no_find"
"""What is learned about a destination: how it showed that it answers no C-FIND at IMAGE level."""

NO_COMMITMENT = "answers_no_commitment"
"""What is learned about a destination: how it showed that it takes no request for commitment."""

LEARNED_FOR_S = 86_400.0
"""A destination that could not answer is asked again after a day: someone may have configured it."""

MAX_REFERENCES = 500
"""Instances in one request for commitment."""

STUDIES_AT_ONCE = 20
"""How many are asked for on one association."""

LONGEST_SLEEP_S = 60.0
SHORTEST_PAUSE_S = 0.2
"""However many hints come, the ledger is looked at no more often …"""

LOOK_SHARE = 20.0
"""… and for no more than one part in so many of the time: a long study on its way is many rows to look at."""

KILL_S = 2.0

_log = structlog.get_logger()
T = TypeVar("T")


class Watch:
    """Proofs of one destination. Runs on the trio thread, what blocks on a thread of its own."""

    def __init__(
        self,
        peer: Peer,
        ledger: Ledger,
        *,
        report: Callable[[CommitmentReport], object],
        changed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.peer = peer
        self._ledger = ledger
        self._report = report
        self._changed = changed
        self._clock = clock
        self._subject = learned.destination_subject(peer.name)
        self._quiet_s = peer.settings.quiet_s
        self._threads = trio.CapacityLimiter(2)
        self._awake = trio.Event()
        self._failures = 0
        self._look_s = 0.0

    def nudge(self) -> None:
        """Something was delivered, or a report came."""
        self._awake.set()

    async def run(self) -> None:
        """Ask for proofs until cancelled."""
        while True:
            self._awake = trio.Event()
            wait_s = await self._round()
            await trio.sleep(min(wait_s, max(SHORTEST_PAUSE_S, LOOK_SHARE * self._look_s)))
            with trio.move_on_after(min(wait_s, LONGEST_SLEEP_S)):
                await self._awake.wait()

    async def _round(self) -> float:
        """Ask for everything that is due; return for how many seconds nothing will be."""
        try:
            wait_s = await self._ask_due()
        except (AssociationError, LedgerUnavailable) as error:
            self._failures += 1
            wait_s = plan.retry_in_s(self._failures)
            _log.warning("proof_not_asked", destination=self.peer.name, reason=str(error), retry_in_s=wait_s)
            await trio.sleep(wait_s)
            return 0.0
        self._failures = 0
        return wait_s

    async def _ask_due(self) -> float:
        for transaction_uid in await self._overdue():
            await self._give_up(transaction_uid)
        next_at = math.inf
        due = list[WaitingStudy]()
        for study, quiet_s, busy in await self._waiting():
            if plan.is_due(study, quiet_s=quiet_s, busy=busy, now=self._clock()):
                due.append(study)
            else:
                next_at = min(next_at, plan.next_look_at(study, quiet_s=quiet_s, busy=busy))
        for some in range(0, len(due), STUDIES_AT_ONCE):
            await self._prove(due[some : some + STUDIES_AT_ONCE])
        deadline_at = await self._read(lambda connection: commitments.next_deadline(connection, self.peer.name))
        return max(0.0, min(next_at, math.inf if deadline_at is None else deadline_at) - self._clock())

    async def _waiting(self) -> list[tuple[WaitingStudy, float, bool]]:
        """Return each study that waits, how long to wait for more of it, and whether more of it is on its way here right now."""
        began = trio.current_time()
        studies = await self._read(self._look)
        self._look_s = trio.current_time() - began
        return studies

    def _look(self, connection: Connection) -> list[tuple[WaitingStudy, float, bool]]:
        waiting = proofs.waiting_studies(connection, self.peer.name)
        return [(study, *self._standing(connection, study)) for study in waiting]

    def _standing(self, connection: Connection, study: WaitingStudy) -> tuple[float, bool]:
        quiet_s = 0.0 if proofs.was_retrieved(connection, study.newest_id) else self._quiet_s
        if not plan.is_due(study, quiet_s=quiet_s, busy=False, now=self._clock()):
            return quiet_s, False
        return quiet_s, proofs.is_busy(connection, self.peer.name, study.study_instance_uid)

    def _unverified(self, connection: Connection, studies: Sequence[WaitingStudy]) -> list[Unverified]:
        return [item for study in studies for item in proofs.unverified(connection, self.peer.name, study.study_instance_uid)]

    async def _prove(self, studies: Sequence[WaitingStudy]) -> None:
        items = await self._read(functools.partial(self._unverified, studies=studies))
        if self.peer.settings.verify == "commitment":
            await self._prove_by_commitment(items)
        else:
            await self._prove_by_listing(items)

    async def _prove_by_listing(self, items: Sequence[Unverified], note: str = "") -> None:
        """Ask by C-FIND whether `items` are there, twice before any counts as missing: an archive may index late."""
        can, cannot = plan.askable(items)
        await self._trust_status(cannot, "no Study or Series Instance UID to ask with", note)
        reason = await self._known(NO_FIND)
        if reason is not None:
            await self._trust_status(can, f"the destination answers no C-FIND: {reason}", note)
            return
        try:
            diff = plan.compare(can, await self._listed(can))
            if diff.missing:
                await trio.sleep(self._quiet_s)
                again = plan.compare(diff.missing, await self._listed(diff.missing))
                diff = plan.Diff(diff.present + again.present, again.missing)
        except CannotAnswer as error:
            await self._learn(NO_FIND, str(error))
            await self._trust_status(can, f"the destination answers no C-FIND: {error}", note)
            return
        await self._record(diff, Proof.EXISTS, note)

    async def _prove_by_commitment(self, items: Sequence[Unverified]) -> None:
        for start in range(0, len(items), MAX_REFERENCES):
            part = items[start : start + MAX_REFERENCES]
            reason = await self._known(NO_COMMITMENT)
            if reason is None:
                reason = await self._request(part)
            if reason is not None:
                await self._prove_by_listing(part, f"no commitment: {reason}")

    async def _request(self, items: Sequence[Unverified]) -> str | None:
        """Request commitment of `items`; return None, or why the destination takes no such request."""
        uid, now = f"2.25.{uuid.uuid4().int}", self._clock()
        ids = [item.delivery_id for item in items]
        deadline_at = now + self.peer.settings.commitment_timeout_s
        name = self.peer.name
        await self._write(lambda connection: commitments.register(connection, uid, name, ids, now=now, deadline_at=deadline_at))
        _log.debug("commitment_requested", destination=name, transaction_uid=uid, instances=len(items))
        references = [InstanceReference(item.sop_class_uid, item.sop_instance_uid) for item in items]
        request = functools.partial(
            self.peer.request_commitment, uid, references, report=self._report, answered=lambda: self._answered(uid)
        )
        try:
            await self._blocking(request)
        except CannotAnswer as error:
            await self._end(uid)
            await self._learn(NO_COMMITMENT, str(error))
            return str(error)
        except AssociationError:
            await self._end(uid)
            raise
        return None

    async def _give_up(self, transaction_uid: str) -> None:
        """Prove by C-FIND what no report came for in time, or what the report that came did not name."""
        items = await self._read(lambda connection: commitments.items(connection, transaction_uid))
        _log.warning("commitment_overdue", destination=self.peer.name, transaction_uid=transaction_uid, instances=len(items))
        if items:
            await self._prove_by_listing(items, f"no commitment report within {self.peer.settings.commitment_timeout_s:g} s")
        await self._end(transaction_uid)

    async def _record(self, diff: plan.Diff, proof: Proof, note: str) -> None:
        now = self._clock()

        def record(connection: Connection) -> tuple[int, int, int]:
            verified = proofs.record_proof(connection, diff.present, proof, now=now, note=note)
            return verified, *proofs.record_missing(connection, diff.missing, now=now, reason=plan.NOT_THERE)

        verified, again, held = await self._write(record)
        say = _log.warning if diff.missing else _log.debug
        say("proved", destination=self.peer.name, proof=proof.value, verified=verified, sent_again=again, held=held, note=note)
        self._changed(self.peer.name)

    async def _trust_status(self, items: Sequence[Unverified], reason: str, note: str) -> None:
        if items:
            words = "; ".join(part for part in (note, f"proved by status only: {reason}") if part)
            await self._record(plan.Diff(tuple(items), ()), Proof.STATUS, words)

    async def _listed(self, items: Sequence[Unverified]) -> set[str]:
        if not items:
            return set()
        return await self._blocking(functools.partial(self.peer.listed, plan.by_series(items)))

    async def _known(self, fact: str) -> str | None:
        now = self._clock()
        return await self._read(lambda connection: learned.get(connection, self._subject, fact, now=now))

    async def _learn(self, fact: str, value: str) -> None:
        now = self._clock()
        _log.warning("destination_cannot_answer", destination=self.peer.name, fact=fact, reason=value)
        await self._write(
            lambda connection: learned.put(connection, self._subject, fact, value, now=now, expires_at=now + LEARNED_FOR_S)
        )

    async def _overdue(self) -> list[str]:
        now = self._clock()
        return await self._read(lambda connection: commitments.expired(connection, self.peer.name, now=now))

    async def _end(self, transaction_uid: str) -> None:
        now = self._clock()
        await self._write(lambda connection: commitments.end(connection, transaction_uid, now=now))

    def _answered(self, transaction_uid: str) -> bool:
        with self._ledger.read() as connection:
            transaction = commitments.get(connection, transaction_uid)
        return transaction is None or transaction.answered

    async def _read(self, query: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._ledger.read() as connection:
                return query(connection)

        return await trio.to_thread.run_sync(read, limiter=self._threads)

    async def _write(self, change: Callable[[Connection], T]) -> T:
        return await trio.to_thread.run_sync(functools.partial(self._ledger.write, change), limiter=self._threads)

    async def _blocking(self, ask: Callable[[], T]) -> T:
        """Ask the peer on a thread; when cancelled, wake it and let it go."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def work() -> T:
            try:
                return ask()
            finally:
                _tell(token, done)

        await trio.lowlevel.checkpoint()
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
        except trio.Cancelled:
            self.peer.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_S):
                await done.wait()
            raise


def _tell(token: trio.lowlevel.TrioToken, done: trio.Event) -> None:
    try:
        token.run_sync_soon(done.set)
    except trio.RunFinishedError:
        return  # nobody waits any more
