from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.commands.status import hours as words
from gateway.cli.output.render import moment
from gateway.config.settings import FolderDestination, ScheduleTable, Settings
from gateway.control.commands.status import Counts, destinations, expiry_warning, hours
from gateway.core.domain import DeliveryState
from gateway.ledger.deliveries.overview import Holdings, QueueDepth
from gateway.security.tls import Certificate

NOW = 1_000_000.0
FOLDER = FolderDestination(kind="folder", path=Path("a"))


def counts(*depths: QueueDepth) -> Counts:
    return Counts(depths, {}, (), (), (), Holdings(0, 0, 0, 0, 0, None), 0)


def test_the_oldest_is_the_oldest_that_still_waits_by_itself() -> None:
    held = QueueDepth("a", DeliveryState.HELD, 1, 100, NOW - 9000)
    waiting = QueueDepth("a", DeliveryState.DEFERRED, 2, 200, NOW - 60)
    (document,) = destinations(Settings(destinations={"a": FOLDER}), counts(held, waiting), {}, NOW)
    assert document["queue"] == {"states": {"held": 1, "deferred": 2}, "size_bytes": 300, "oldest_s": 60.0}


def test_a_removed_destination_that_is_still_owed_is_shown() -> None:
    owed = QueueDepth("gone", DeliveryState.PENDING, 3, 300, NOW - 60)
    (document,) = destinations(Settings(), counts(owed), {}, NOW)
    assert (document["name"], document["kind"]) == ("gone", "gone")


def test_a_destination_shows_whether_its_hours_are_open_and_until_when() -> None:
    night = ScheduleTable(time_zone="UTC", night="19-6")
    settings = Settings(destinations={"a": FOLDER.model_copy(update={"when": "night"}), "b": FOLDER}, schedule={"night": night})
    noon, seven = (datetime(2026, 11, 25, hour, tzinfo=UTC).timestamp() for hour in (12, 19))
    at_noon, always = destinations(settings, counts(), {}, noon)
    assert at_noon["hours"] == {"schedule": "night", "open": False, "changes_at": seven}
    assert always["hours"] is None
    assert hours(settings, "night", seven) == {"schedule": "night", "open": True, "changes_at": seven + 11 * 3600}
    assert words(at_noon["hours"]) == f"outside its hours until {moment(seven)} (night)"


@pytest.mark.parametrize(("days", "warning"), [(40, None), (30, None), (29, "expires in 29 days"), (-1, "expired on 2024-02-28")])
def test_a_certificate_is_warned_about_from_30_days_ahead(days: int, warning: str | None) -> None:
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    certificate = Certificate(Path("a.crt"), "listen.tls.certificate", ("a",), now + timedelta(days=days))
    assert expiry_warning(certificate, now) == warning
