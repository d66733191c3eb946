"""Proofs for all destinations that are asked for one: by C-FIND, by Storage Commitment, or by comparing contents."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
from sqlalchemy import Connection

from gateway.association.dimse.commitment import CommitmentReport
from gateway.association.dimse.statuses import INVALID_ARGUMENT, PROCESSING_FAILURE, SUCCESS
from gateway.config.settings import DicomDestination, Settings
from gateway.confirm.peer import Peer
from gateway.confirm.plan import failure_words
from gateway.confirm.watch import Store, Watch
from gateway.core.domain import Proof
from gateway.core.errors import LedgerUnavailable
from gateway.core.log import get_logger
from gateway.ledger import Ledger
from gateway.ledger.deliveries import commitments, proofs
from gateway.security import tls

WATCH_PAUSE_S = 5.0

_log = get_logger()


def _nobody(_destination: str) -> None:
    """Tell nobody."""


class Confirmer:
    """Asks destinations for proof. `run` it in a nursery; it is also the acceptor's `CommitmentService`."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        *,
        changed: Callable[[str], None] = _nobody,
        clock: Callable[[], float] = time.time,
        store: Callable[[str], Store] | None = None,
    ) -> None:
        """`store` opens a destination, by name, for ``verify = "digest"``.

        `changed` is called with a destination's name when deliveries were verified or have to be sent again, on any thread.

        Raises:
            ConfigurationError: a certificate or key cannot be used.
        """
        self._ledger = ledger
        self._changed = changed
        self._clock = clock
        self._watches = {
            peer.name: Watch(peer, ledger, report=self.report, changed=changed, clock=clock, store=store)
            for peer in _peers(settings)
        }

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask for proofs until cancelled, also of instances that were delivered and not verified in an earlier run."""
        async with trio.open_nursery() as nursery:
            for watch in self._watches.values():
                nursery.start_soon(_keep, watch)
            task_status.started()

    def nudge(self, destination: str | None = None) -> None:
        """Say that something was delivered, to `destination` or anywhere. From any thread; a hint."""
        for name, watch in self._watches.items():
            if destination in (None, name):
                watch.nudge()

    def report(self, report: CommitmentReport) -> int:
        """Take the N-EVENT-REPORT of a destination and return the status to answer (PS3.4 §J.3.3). On any thread.

        Committed instances are verified; failed ones are sent once more, the second time held. A report that comes late, or again,
        changes nothing.
        """
        try:
            destination = self._ledger.write(lambda connection: _take(connection, report, self._clock()))
        except LedgerUnavailable as error:
            _log.warning("commitment_not_recorded", transaction_uid=report.transaction_uid, reason=str(error))
            return PROCESSING_FAILURE
        if destination is None:
            _log.warning("commitment_unknown", transaction_uid=report.transaction_uid)
            return INVALID_ARGUMENT  # the report names a transaction that we never made (PS3.7 §C.5.10)
        name, committed, failed = destination, len(report.committed), len(report.failed)
        say = _log.warning if failed else _log.debug
        say("commitment_reported", destination=name, transaction_uid=report.transaction_uid, committed=committed, failed=failed)
        self._changed(destination)
        self.nudge(destination)
        return SUCCESS


def _take(connection: Connection, report: CommitmentReport, now: float) -> str | None:
    """Record `report`; return the destination that it is about, None where the transaction is not ours."""
    transaction = commitments.get(connection, report.transaction_uid)
    if transaction is None or transaction.answered:
        return None if transaction is None else transaction.destination
    waiting = commitments.items(connection, report.transaction_uid)
    reasons = {failure.sop_instance_uid: failure.reason for failure in report.failed}
    committed = {reference.sop_instance_uid for reference in report.committed} - reasons.keys()
    kept = [item for item in waiting if item.sop_instance_uid in committed]
    failed = [item for item in waiting if item.sop_instance_uid in reasons]
    proofs.record_proof(connection, kept, Proof.COMMITMENT, now=now)
    for reason in set(reasons.values()):
        same = [item for item in failed if reasons[item.sop_instance_uid] == reason]
        proofs.record_missing(connection, same, now=now, reason=failure_words(reason))
    named = [item.delivery_id for item in (*kept, *failed)]
    commitments.settle(connection, report.transaction_uid, named, now=now)
    return transaction.destination


async def _keep(watch: Watch) -> None:
    """Run a watch, and again where a fault of our own ends it, so that one destination never takes the others with it."""
    while True:
        try:
            await watch.run()
        except Exception as error:  # noqa: BLE001 - the root of the watch's task
            _log.exception("watch_failed", destination=watch.peer.name, error=type(error).__name__)
            await trio.sleep(WATCH_PAUSE_S)


def _peers(settings: Settings) -> list[Peer]:
    return [
        _peer(name, confirming, settings)
        for name, table in settings.destinations.items()
        if (confirming := table.can.confirm) is not None
    ]


def _peer(name: str, table: DicomDestination, settings: Settings) -> Peer:
    context = None if table.tls is None else tls.requestor_context(table.tls, key=f"destinations.{name}.tls")
    return Peer(name, table, table.calling_ae_title or settings.gateway.ae_title, context)
