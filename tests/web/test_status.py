from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.domain import DeliveryState
from gateway.ledger.overview import Holdings, QueueDepth
from gateway.settings import FolderDestination
from gateway.tls import Certificate
from gateway.web.status import Counts, destinations, expiry_warning

NOW = 1_000_000.0


def counts(*depths: QueueDepth) -> Counts:
    return Counts(depths, {}, (), (), (), Holdings(0, 0, 0, 0, 0, None), 0)


def test_the_oldest_is_the_oldest_that_still_waits_by_itself() -> None:
    held = QueueDepth("a", DeliveryState.HELD, 1, 100, NOW - 9000)
    waiting = QueueDepth("a", DeliveryState.DEFERRED, 2, 200, NOW - 60)
    (document,) = destinations({"a": FolderDestination(kind="folder", path=Path("a"))}, counts(held, waiting), {}, NOW)
    assert document["queue"] == {"states": {"held": 1, "deferred": 2}, "size_bytes": 300, "oldest_s": 60.0}


def test_a_destination_that_is_no_longer_configured_but_still_owed_is_shown() -> None:
    owed = QueueDepth("gone", DeliveryState.PENDING, 3, 300, NOW - 60)
    (document,) = destinations({}, counts(owed), {}, NOW)
    assert (document["name"], document["kind"]) == ("gone", "gone")


@pytest.mark.parametrize(("days", "warning"), [(40, None), (30, None), (29, "expires in 29 days"), (-1, "expired on 2024-02-28")])
def test_a_certificate_is_warned_about_from_30_days_ahead(days: int, warning: str | None) -> None:
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    certificate = Certificate(Path("a.crt"), "listen.tls.certificate", ("a",), now + timedelta(days=days))
    assert expiry_warning(certificate, now) == warning
