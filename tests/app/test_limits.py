"""A whole gateway with limits: hours of a destination, rates, and how many associations a source may have."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.association.scu.requestor import RemoteAE, Requestor, associate
from gateway.association.upper.contexts import plan_contexts
from gateway.core.errors import AssociationRejected
from gateway.core.throttle import Throttle
from tests.app.conftest import Run, running
from tests.support.gateway import Gateway, deliveries, folder_destination, settled
from tests.support.load import Ledger as Sender
from tests.support.load import Template, files_in
from tests.support.ports import HOST
from tests.support.raw import CT, EXPLICIT_LE, RawRequestor
from tests.support.throttles import Counting


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(Template(tmp_path / "template"))


def hours(*, shut: bool) -> dict[str, Any]:
    """Return a schedule that is open always, or one that is half a day away from being open."""
    hour = datetime.now(UTC).hour
    return {"night": {"time_zone": "UTC", "night": f"{(hour + 11) % 24}-{(hour + 12) % 24}" if shut else "0-24"}}


def source(**limits: Any) -> dict[str, Any]:
    return {"ae_title": "SENDER", "host": HOST} | limits


def test_outside_its_hours_a_destination_gets_nothing_and_status_says_why(
    site: Gateway, run: Run, sender: Sender, tmp_path: Path
) -> None:
    night = folder_destination(tmp_path / "night") | {"when": "night"}
    site.write(destinations=site.tables["destinations"] | {"night": night}, schedule=hours(shut=True))
    with running(site):
        assert sender.send(site.port, 3)
        settled(site, 3, "verified", destination="archive")
        tried = run("queue", "retry", "--destination", "night")
        assert (tried.code, "3: it waits for its turn already" in tried.out) == (1, True)
        document = run("status", "--json").document["destinations"][1]
        assert document["queue"]["states"] == {"pending": 3}
        assert (document["hours"]["schedule"], document["hours"]["open"]) == ("night", False)
        assert "outside its hours until" in run("status").out
    assert files_in(tmp_path / "night") == []
    site.write(schedule=hours(shut=False))
    with running(site):
        rows = settled(site, 3, "verified", destination="night")
        assert "outside its hours" not in run("status").out
    assert {row.attempts for row in rows} == {1}
    assert len(files_in(tmp_path / "night")) == 3


def test_rates_of_the_configuration_are_those_of_what_comes_and_goes(
    site: Gateway, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    throttles = {rate: Counting(1_000_000.0) for rate in ("1 MB/s", "2 MB/s")}
    monkeypatch.setattr(Throttle, "of", throttles.get)
    limited = folder_destination(tmp_path / "limited") | {"max_rate": "2 MB/s"}
    site.write(sources={"sender": source(max_rate="1 MB/s")}, destinations={"limited": limited})
    data = sender.template.instance(f"{sender.prefix}.1")
    with running(site):
        with RawRequestor(site.port, calling="SENDER") as peer:
            assert peer.store(f"{sender.prefix}.1", data) == 0
        settled(site, 1, "verified")
        with RawRequestor(site.port, calling="OTHER") as peer:
            assert peer.store(f"{sender.prefix}.2", sender.template.instance(f"{sender.prefix}.2")) == 0
        settled(site, 2, "verified")
    assert len(data) < sum(throttles["1 MB/s"].taken) < len(data) + 1000, "only what the source sent"
    assert sum(throttles["2 MB/s"].taken) == 2 * len(data)


def test_a_source_has_no_more_associations_than_it_may(site: Gateway) -> None:
    site.write(sources={"sender": source(associations=1)})

    def opened(calling: str) -> Requestor:
        return associate(RemoteAE("GATEWAY", HOST, site.port), calling, plan_contexts([(CT, EXPLICIT_LE)])[0])

    with running(site), opened("SENDER"), opened("OTHER"), opened("OTHER"):
        with pytest.raises(AssociationRejected, match="local limit exceeded"):
            opened("SENDER")
        assert deliveries(site) == []
