"""A destination as the one who answers for what it has: C-FIND and Storage Commitment as SCU. Blocking; for a thread."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.archives.lister import Evidence, PresenceLister, list_all
from gateway.association.dimse.commitment import CommitmentReport, InstanceReference
from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.presence import FIND_CONTEXT, instances_of_series
from gateway.association.scu.remote import deadlines_of, remote_of
from gateway.association.scu.requestor import Requestor, associate
from gateway.association.upper.contexts import COMMITMENT_CONTEXTS, ProposedContext
from gateway.config.settings import DicomDestination
from gateway.confirm.plan import by_series, refuses_find
from gateway.core.errors import AssociationError, DimseFailed, NoPresentationContext
from gateway.ledger.deliveries.proofs import Unverified

MAX_BREAKS = 3
"""After so many associations in a row that broke over C-FIND, the destination counts as one that does not answer it."""

SAME_ASSOCIATION_S = 5.0
"""The time that the requesting association stays open for a report on it; most peers report on a new one."""

EVENT_WAIT_S = 0.25
"""Between two looks whether the report came on another association."""


class CannotAnswer(Exception):
    """The destination does not answer this kind of question; the message says how that showed."""


@dataclass
class Peer:
    """One destination to ask. One thread at a time uses it; `kill` may come from any."""

    name: str
    settings: DicomDestination
    calling_ae: str
    tls: ssl.SSLContext | None = None
    _evidence: Evidence = field(default_factory=Evidence, init=False)
    _breaks: int = 0
    _switch: KillSwitch = field(default_factory=KillSwitch, init=False)

    def listed(self, items: Sequence[Unverified], *, by_uid: bool = False) -> set[str]:
        """Return the SOP Instance UIDs that the destination lists in the series of `items`.

        With `by_uid` those of `items` that no list has are asked for by their SOP Instance UIDs: many an archive cuts its lists
        short, and has what it does not list.

        Raises:
            CannotAnswer: it does not answer C-FIND at IMAGE level.
            AssociationError: not now.
        """
        found: set[str] = set()
        try:
            with self._associated((FIND_CONTEXT,)) as association, self._counting_breaks():
                for study, series in by_series(items):
                    there = instances_of_series(association, study, series)
                    missing = [item.sop_instance_uid for item in items if item.series_instance_uid == series] if by_uid else []
                    missing = [uid for uid in missing if uid not in there]
                    lister = PresenceLister(study, series, self._evidence, named=missing, known=next(iter(there), ""))
                    found |= there | list_all(lister, association).found.keys()
        except NoPresentationContext as error:
            raise CannotAnswer("no presentation context accepted for C-FIND") from error
        except DimseFailed as error:
            if refuses_find(error.status):
                raise CannotAnswer(f"C-FIND at IMAGE level answered {error.status:04X}") from error
            raise
        return found

    def request_commitment(
        self,
        transaction_uid: str,
        references: Sequence[InstanceReference],
        *,
        report: Callable[[CommitmentReport], object],
        answered: Callable[[], bool],
    ) -> None:
        """Ask for commitment and stay a while for a report on the same association, with which `report` is called.

        Raises:
            CannotAnswer: the destination takes no such request.
            AssociationError: not now.
        """
        try:
            with self._associated(COMMITMENT_CONTEXTS) as association:
                association.request_commitment(transaction_uid, references)
                _await_report(association, report, answered)
        except NoPresentationContext as error:
            raise CannotAnswer("no presentation context accepted for Storage Commitment") from error
        except DimseFailed as error:
            raise CannotAnswer(f"the request for commitment was answered {error.status:04X}") from error

    def kill(self) -> None:
        """Wake the thread that uses the destination."""
        self._switch.kill()

    @contextmanager
    def _associated(self, contexts: Sequence[ProposedContext]) -> Iterator[Requestor]:
        remote, deadlines = remote_of(self.settings, self.tls), deadlines_of(self.settings)
        switch = self._switch = KillSwitch()
        with switch.on_this_thread(), associate(remote, self.calling_ae, contexts, deadlines=deadlines) as association:
            yield association

    @contextmanager
    def _counting_breaks(self) -> Iterator[None]:
        try:
            yield
        except (DimseFailed, NoPresentationContext):
            raise
        except AssociationError as error:
            self._breaks += 1
            if self._breaks >= MAX_BREAKS:
                raise CannotAnswer(f"C-FIND broke {self._breaks} associations in a row") from error
            raise
        self._breaks = 0


def _await_report(association: Requestor, report: Callable[[CommitmentReport], object], answered: Callable[[], bool]) -> None:
    """Stay for a report. That the peer ends the association is no failure: it took the request and may report on another."""
    for _ in range(round(SAME_ASSOCIATION_S / EVENT_WAIT_S)):
        if answered():
            return
        try:
            event = association.next_event(EVENT_WAIT_S)
        except AssociationError:
            return
        if event is not None:
            report(event)
            return
