"""At start: spool and ledger are reconciled, before the first association is accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway.intake.storage import Correlate, Route
from gateway.ledger import Ledger
from gateway.spool import Spool


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What `recover` found and did, in instances; `corrupt` are files moved to the spool's ``corrupt`` folder."""

    swept: int = 0
    adopted: int = 0
    corrupt: int = 0
    missing: int = 0
    removed: int = 0
    routed: int = 0


def recover(
    spool: Spool,
    ledger: Ledger,
    *,
    route: Route,
    keywords: Collection[str] = (),
    correlate: Correlate = lambda _provenance, _uid: None,
    clock: Callable[[], float] = time.time,
) -> RecoveryReport:
    """Reconcile `spool` with `ledger` and route anew what no route matched before.

    Partial files are removed; a file without a row is adopted with the provenance it carries, or quarantined where its bytes
    are not what was written; a row without its file is marked missing and its deliveries held; a file whose bytes had been
    released is removed. To be called before anything is received. The same call after a crash in the middle carries on.
    """
    raise NotImplementedError
