"""One destination that is asked for proof: waits until studies are quiet there, asks, and records what the answer means."""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import trio
from sqlalchemy import Connection

from gateway.association.dimse.commitment import CommitmentReport, InstanceReference
from gateway.confirm import plan
from gateway.confirm.peer import CannotAnswer, Peer
from gateway.core.domain import Content, Proof
from gateway.core.errors import AssociationError, GatewayError, LedgerUnavailable, WebServiceError, leaf
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import ThreadEvent, WakeUp
from gateway.ledger import Ledger
from gateway.ledger.deliveries import commitments, proofs
from gateway.ledger.deliveries.proofs import Unverified, WaitingStudy
from gateway.ledger.peers import learned

NO_FIND = "answers_no_find"
"""The fact about a destination that it answers no C-FIND at IMAGE level; its value says how that showed."""

NO_COMMITMENT = "answers_no_commitment"
"""The fact about a destination that it takes no request for commitment; its value says how that showed."""

LEARNED_FOR_S = 86_400.0
"""A destination that could not answer is asked again after a day: someone may have configured it."""

MAX_REFERENCES = 500
"""Instances in one request for commitment."""

STUDIES_AT_ONCE = 20
"""The number of studies that are asked for on one association."""

COMPARED_AT_ONCE = 100
"""Instances that are compared before what was found is recorded."""

COMPARE_THREADS = 4
"""Instances of a destination that are fetched and compared at a time."""

LONGEST_SLEEP_S = 60.0
SHORTEST_PAUSE_S = 0.2
"""However many hints come, the ledger is looked at no more often …"""

LOOK_SHARE = 20.0
"""… and for no more than one part in so many of the time: a long study on its way is many rows to look at."""

KILL_S = 2.0

_log = get_logger()
T = TypeVar("T")


class NotStored(GatewayError):
    """A destination does not have an instance that is to be compared."""


class NotComparable(GatewayError):
    """A destination's stored instance cannot be held against what was delivered; the text says why."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An instance at a destination, to be compared with the gateway's own bytes of it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    content: Content
    transfer_syntax_uid: str


class Store(Protocol):
    """A destination, open for looking into what it stores. Blocking; thread-safe."""

    def differing(self, item: Delivered) -> Sequence[str]:
        """Return what the stored instance differs in from what was delivered: names of elements, and pixels.

        Raises NotStored, NotComparable; AssociationError and WebServiceError where it cannot be asked now.
        """

    def close(self) -> None:
        """End what is open."""


@dataclass
class _Compared:
    """The results of comparing items."""

    same: list[Unverified] = field(default_factory=list)
    missing: list[Unverified] = field(default_factory=list)
    other: dict[str, list[Unverified]] = field(default_factory=dict)
    """The instances that differ, by what they differ in."""

    unknown: dict[str, list[Unverified]] = field(default_factory=dict)
    """The instances that cannot be compared, by the reason."""


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
        store: Callable[[str], Store] | None = None,
    ) -> None:
        """`store` opens the destination, by name, for ``verify = "digest"``; it raises NotComparable where there is no way in."""
        self.peer = peer
        self._ledger = ledger
        self._report = report
        self._changed = changed
        self._clock = clock
        self._store = store
        self._subject = learned.destination_subject(peer.name)
        self._quiet_s = peer.settings.quiet_s
        self._threads = trio.CapacityLimiter(2)
        self._comparing = trio.CapacityLimiter(COMPARE_THREADS)
        self._awake: WakeUp | None = None
        self._failures = 0
        self._look_s = 0.0

    def nudge(self) -> None:
        """Something was delivered, or a report came. From any thread; `run` looks by itself when it begins."""
        if self._awake is not None:
            self._awake.give()

    async def run(self) -> None:
        """Ask for proofs until cancelled."""
        self._awake = awake = WakeUp()
        while True:
            wait_s = await self._round()
            await trio.sleep(min(wait_s, max(SHORTEST_PAUSE_S, LOOK_SHARE * self._look_s)))
            await awake.wait(min(wait_s, LONGEST_SLEEP_S))

    async def _round(self) -> float:
        """Ask for everything that is due; return for how many seconds nothing will be."""
        try:
            wait_s = await self._ask_due()
        except (AssociationError, WebServiceError, LedgerUnavailable) as error:
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
        if self.peer.settings.can.commit is not None:
            await self._prove_by_commitment(items)
        elif self.peer.settings.can.digest:
            await self._prove_by_digest(items)
        else:
            await self._prove_by_listing(items)

    async def _prove_by_listing(self, items: Sequence[Unverified], note: str = "") -> None:
        """Ask by C-FIND whether `items` are there, twice before any counts as missing: an archive may index late.

        The second time what is not listed is asked for by its UID: an archive may cut its lists short.
        """
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
                again = plan.compare(diff.missing, await self._listed(diff.missing, by_uid=True))
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

    async def _prove_by_digest(self, items: Sequence[Unverified]) -> None:
        """Compare what the destination stores with what was delivered; where that cannot be done, the list is asked."""
        can, cannot = plan.askable(items)
        await self._trust_status(cannot, "no Study or Series Instance UID to ask with", "")
        for start in range(0, len(can), COMPARED_AT_ONCE):
            await self._compare(can[start : start + COMPARED_AT_ONCE])

    async def _compare(self, items: Sequence[Unverified]) -> None:
        found = await self._compared(items)
        if found.missing:
            await trio.sleep(self._quiet_s)
            again = await self._compared(found.missing)
            # An instance that cannot be fetched may be there all the same: the list decides.
            absent = {plan.NOT_FETCHED: again.missing} if again.missing else {}
            unknown = _merged(found.unknown, _merged(again.unknown, absent))
            found = _Compared(found.same + again.same, [], _merged(found.other, again.other), unknown)
        if found.same:
            await self._record(plan.Diff(tuple(found.same), ()), Proof.DIGEST, "")
        for names, some in found.other.items():
            await self._hold(some, f"{plan.OTHER_CONTENT}: {names}")
        for why, some in found.unknown.items():
            await self._prove_by_listing(some, f"contents not compared: {why}")

    async def _compared(self, items: Sequence[Unverified]) -> _Compared:
        contents = await self._read(functools.partial(proofs.contents_of, items=items))
        into = _Compared()
        try:
            if self._store is None:
                raise NotComparable("nothing can be fetched")
            store = await trio.to_thread.run_sync(self._store, self.peer.name)
        except NotComparable as error:
            into.unknown[str(error)] = list(items)
            return into
        try:
            async with trio.open_nursery() as nursery:
                for item in items:
                    nursery.start_soon(self._compare_one, store, item, contents.get(item.delivery_id), into)
        except BaseExceptionGroup as group:
            raise leaf(group) from group
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(store.close)
        return into

    async def _compare_one(self, store: Store, item: Unverified, content: tuple[Content, str] | None, into: _Compared) -> None:
        if content is None:
            return  # forgotten meanwhile
        wanted = Delivered(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid, *content)
        try:
            ask = functools.partial(store.differing, wanted)
            names = await trio.to_thread.run_sync(ask, limiter=self._comparing, abandon_on_cancel=True)
        except NotStored:
            into.missing.append(item)
        except NotComparable as error:
            into.unknown.setdefault(str(error), []).append(item)
        else:
            if names:
                into.other.setdefault(plan.differences(names), []).append(item)
            else:
                into.same.append(item)

    async def _hold(self, items: Sequence[Unverified], reason: str) -> None:
        now = self._clock()
        held = await self._write(lambda connection: proofs.record_differing(connection, items, now=now, reason=reason))
        _log.warning("other_content_stored", destination=self.peer.name, held=held, reason=reason)
        self._changed(self.peer.name)

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

    async def _listed(self, items: Sequence[Unverified], *, by_uid: bool = False) -> set[str]:
        if not items:
            return set()
        return await self._blocking(functools.partial(self.peer.listed, items, by_uid=by_uid))

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
        transaction = self._ledger.ask(lambda connection: commitments.get(connection, transaction_uid))
        return transaction is None or transaction.answered

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._ledger.ask, query, limiter=self._threads)

    async def _write(self, change: Callable[[Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._ledger.write, change, limiter=self._threads)

    async def _blocking(self, ask: Callable[[], T]) -> T:
        """Ask the peer on a thread; when cancelled, wake it and let it go."""
        done = ThreadEvent()

        def work() -> T:
            try:
                return ask()
            finally:
                done.set()

        await trio.lowlevel.checkpoint()
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
        except trio.Cancelled:
            self.peer.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_S):
                await done.wait()
            raise


def _merged(one: dict[str, list[Unverified]], other: dict[str, list[Unverified]]) -> dict[str, list[Unverified]]:
    return {key: one.get(key, []) + other.get(key, []) for key in (*one, *other)}
