"""Destinations that misbehave, end to end: each row of the status table, refusals, aborts, silence, absence and return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import data, dcmtk
from tests.support.gateway import Delivery, Gateway, deliveries, dicom_destination, folder_destination, settled
from tests.support.load import Ledger, Template
from tests.support.ports import free_port
from tests.support.processes import Running
from tests.support.scripted_scp import Answer, ScriptedScp
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

QUICK = {"attempts": 3, "first_s": 0.1, "max_s": 0.3}

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


@dataclass
class Scene:
    """A running gateway in front of one destination named ``peer``."""

    gateway: Gateway
    process: Running
    sent: Ledger

    def store(self, count: int = 1) -> None:
        """Send `count` instances to the gateway, which must take them all."""
        assert self.sent.load(self.gateway.port, associations=1, each=count)
        assert self.sent.statuses == {SUCCESS}

    def outcome(self, *states: str, count: int = 1) -> list[Delivery]:
        """Wait until `count` deliveries to ``peer`` stand in one of `states`."""
        return settled(self.gateway, count, *states, destination="peer")


@contextmanager
def scene(folder: Path, port: int, **destination: Any) -> Iterator[Scene]:
    usual: dict[str, Any] = {"verify": "status", "retry": QUICK, "response_timeout_s": 2.0, "associations": 1}
    table = dicom_destination(port, **{**usual, **destination})
    gateway = Gateway(folder / "gateway", {"destinations": {"peer": table}})
    with gateway.serving() as process:
        yield Scene(gateway, process, Ledger(Template(folder / "template")))


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0111])
def test_success_warnings_and_duplicates_are_delivered(tmp_path: Path, status: int) -> None:
    with ScriptedScp(answer=lambda *_: status).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("verified", "delivered")
    assert (row.status, row.attempts, len(peer.stores)) == (status, 1, 1)
    assert (row.reason == "") == (status == SUCCESS), "a warning is shown, a success needs no words"


@pytest.mark.parametrize("status", [0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212])
def test_what_another_try_cannot_help_is_held_at_once(tmp_path: Path, status: int) -> None:
    with ScriptedScp(answer=lambda *_: status).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("held")
    assert (row.status, row.attempts, len(peer.stores)) == (status, 1, 1)
    assert f"{status:04X}" in row.reason


@pytest.mark.parametrize("status", [0x0110, 0xC000, 0xC123, 0xA900, 0xA9FF])
def test_failures_are_tried_once_more_on_a_new_association_then_held(tmp_path: Path, status: int) -> None:
    with ScriptedScp(answer=lambda *_: status).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("held")
    assert (row.status, row.attempts) == (status, 2)
    assert [store.association for store in peer.stores] == [1, 2]


@pytest.mark.parametrize("status", [0xA700, 0xA7FF])
def test_a_destination_out_of_resources_is_left_in_peace_then_held(tmp_path: Path, status: int) -> None:
    with ScriptedScp(answer=lambda *_: status).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("held")
    assert (row.status, row.attempts, len(peer.stores)) == (status, QUICK["attempts"], QUICK["attempts"])


def test_a_destination_that_recovers_gets_what_it_refused(tmp_path: Path) -> None:
    def answer(nth: int, _store: object) -> Answer:
        return OUT_OF_RESOURCES if nth <= 2 else SUCCESS

    with ScriptedScp(answer=answer).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("verified")
    assert (row.attempts, len(peer.stores)) == (3, 3)


@pytest.mark.parametrize("when", ["before the data set", "instead of an answer"])
def test_an_instance_whose_association_was_aborted_is_sent_again(tmp_path: Path, when: str) -> None:
    def interrupt(nth: int) -> Answer | None:
        return "abort" if when == "before the data set" and peer.associations == 1 else None

    def answer(nth: int, _store: object) -> Answer:
        return "abort" if when == "instead of an answer" and nth == 1 else SUCCESS

    peer = ScriptedScp(answer=answer, interrupt=interrupt)
    with peer.running(), scene(tmp_path, peer.port) as stage:
        stage.store(3)
        rows = stage.outcome("verified", count=3)
    assert {row.uid for row in rows} == set(peer.uids) == stage.sent.acknowledged
    assert peer.associations >= 2


def test_a_silent_destination_is_held_as_uncertain_after_the_attempts(tmp_path: Path) -> None:
    with ScriptedScp(answer=lambda *_: "hang").running() as peer, scene(tmp_path, peer.port, response_timeout_s=0.5) as stage:
        stage.store()
        (row,) = stage.outcome("held")
    assert row.uncertain
    assert row.attempts == QUICK["attempts"]


def test_an_unaccepted_transfer_syntax_is_held_with_the_reason(tmp_path: Path) -> None:
    with ScriptedScp(negotiate=lambda *_: None).running() as peer, scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("held")
    assert "transfer syntax" in row.reason.lower()
    assert peer.stores == []


def test_associations_rejected_for_now_cost_no_attempt(tmp_path: Path) -> None:
    peer = ScriptedScp(admit=lambda nth: (2, 3, 2) if nth <= 2 else None)
    with peer.running(), scene(tmp_path, peer.port) as stage:
        stage.store()
        (row,) = stage.outcome("verified")
    assert row.attempts == 1


def test_a_destination_down_for_a_while_gets_everything_once_back(tmp_path: Path) -> None:
    port = free_port()
    with scene(tmp_path, port) as stage:
        stage.store(20)
        wait_until(lambda: "destination_down" in stage.process.output, "the log saying so", deadline_s=10)
        assert {row.attempts for row in deliveries(stage.gateway)} == {0}, "the way to it failed, not the instances"
        with ScriptedScp().running(port) as peer:
            rows = stage.outcome("verified", count=20)
    assert set(peer.uids) == {row.uid for row in rows}


def test_a_restart_in_between_changes_nothing(tmp_path: Path) -> None:
    port = free_port()
    with scene(tmp_path, port) as stage:
        stage.store(5)
    with ScriptedScp().running(port) as peer, stage.gateway.serving():
        stage.outcome("verified", count=5)
    assert set(peer.uids) == stage.sent.acknowledged


def test_nothing_is_sent_twice_to_a_destination_that_answers(tmp_path: Path) -> None:
    with ScriptedScp().running() as peer, scene(tmp_path, peer.port, associations=4) as stage:
        assert stage.sent.load(stage.gateway.port, associations=4, each=50)
        stage.outcome("verified", count=200)
    assert sorted(peer.uids) == sorted(stage.sent.acknowledged)


def test_one_dead_and_one_silent_destination_cost_the_third_nothing(tmp_path: Path) -> None:
    template = Template(tmp_path / "template")
    with ScriptedScp(answer=lambda *_: "hang").running() as silent, ScriptedScp().running() as good:
        common = {"verify": "status", "retry": QUICK}
        tables = {
            "dead": dicom_destination(free_port(), **common),
            "silent": dicom_destination(silent.port, response_timeout_s=60.0, **common),
            "good": dicom_destination(good.port, **common),
            "folder": folder_destination(tmp_path / "archive"),
        }
        gateway, sent = Gateway(tmp_path / "gateway", {"destinations": tables, "serve": {"drain_timeout_s": 3.0}}), Ledger(template)
        with gateway.serving():
            assert sent.load(gateway.port, associations=2, each=50)
            settled(gateway, 100, "verified", destination="good", deadline_s=20)
            settled(gateway, 100, "verified", destination="folder", deadline_s=20)
            assert not [row for row in deliveries(gateway, "dead") if row.state == "verified"]


@pytest.mark.peers("storescp")
@pytest.mark.parametrize("option", ["--refuse", "--abort-after", "--abort-during"])
def test_storescp_that_refuses_or_aborts_keeps_the_instance_here(tmp_path: Path, option: str) -> None:
    with dcmtk.storescp(tmp_path / "received", option) as peer, scene(tmp_path, peer.port) as stage:
        stage.store(2)
        wait_until(lambda: "destination_down" in stage.process.output or _tried(stage.gateway), "an attempt", deadline_s=15)
        assert {row.state for row in deliveries(stage.gateway)} <= {"pending", "sending", "deferred", "held"}
    with dcmtk.storescp(tmp_path / "received-later", port=peer.port) as peer, stage.gateway.serving():
        # Where all of it went out before there is nothing to hurry, and it says so.
        done = stage.gateway.run("queue", "retry", "--destination", "peer")
        assert done.returncode == ("0 deliveries" in done.stdout), done.stdout
        stage.outcome("verified", count=2)
        assert set(peer.received()) == stage.sent.acknowledged


def _tried(gateway: Gateway) -> bool:
    return any(row.attempts for row in deliveries(gateway))


@pytest.mark.peers("storescp")
@pytest.mark.parametrize("option", ["--sleep-after", "--sleep-during"])
def test_a_slow_storescp_is_waited_for(tmp_path: Path, option: str) -> None:
    with (
        dcmtk.storescp(tmp_path / "received", option, "1") as peer,
        scene(tmp_path, peer.port, response_timeout_s=10.0) as stage,
    ):
        stage.store(2)
        rows = stage.outcome("verified", count=2)
    assert {row.attempts for row in rows} == {1}


@pytest.mark.peers("storescp")
def test_a_frozen_destination_holds_up_nobody_and_gets_the_rest_on_thaw(tmp_path: Path) -> None:
    with dcmtk.storescp(tmp_path / "received") as peer:
        stopped = dicom_destination(peer.port, verify="status", retry={**QUICK, "attempts": 100}, response_timeout_s=1.0)
        tables = {"peer": stopped, "folder": folder_destination(tmp_path / "archive")}
        gateway, sent = Gateway(tmp_path / "gateway", {"destinations": tables}), Ledger(Template(tmp_path / "template"))
        with gateway.serving():
            assert sent.load(gateway.port, associations=1, each=3)
            settled(gateway, 3, "verified", destination="peer")
            peer.process.freeze()
            assert sent.load(gateway.port, associations=2, each=10)
            settled(gateway, 23, "verified", destination="folder")
            assert len([row for row in deliveries(gateway, "peer") if row.state == "verified"]) == 3
            peer.process.thaw()
            settled(gateway, 23, "verified", destination="peer", deadline_s=60)
        assert set(peer.received()) == sent.acknowledged


@pytest.mark.peers("storescp")
def test_storescp_over_mutual_tls_gets_the_instances_and_a_stranger_none(tmp_path: Path, certificate: Any, ca: Any) -> None:
    with dcmtk.storescp(tmp_path / "received", tls=certificate("peer")) as peer:
        good = dicom_destination(peer.port, tls=certificate("gateway"), verify="status", retry=QUICK)
        stranger = {**dicom_destination(peer.port, verify="status", retry=QUICK), "tls": ca.issue("stranger")}
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"good": good, "stranger": stranger}})
        sent = Ledger(Template(tmp_path / "template"))
        with gateway.serving() as process:
            assert sent.load(gateway.port, associations=1, each=3)
            settled(gateway, 3, "verified", destination="good")
            wait_until(lambda: "TLS" in process.output or "tls" in process.output, "the log naming TLS")
            assert not [row for row in deliveries(gateway, "stranger") if row.state in {"delivered", "verified"}]
        assert set(peer.received()) == sent.acknowledged


@pytest.mark.peers("storescp")
def test_instances_of_one_study_go_over_one_association(tmp_path: Path) -> None:
    files = data.ct_series(tmp_path / "files", 30)
    with dcmtk.storescp(tmp_path / "received") as peer, scene(tmp_path, peer.port) as stage:
        dcmtk.storescu(stage.gateway.port, *files)
        stage.outcome("verified", count=30)
        assert peer.process.output.count("Association Received") <= 1 + 6, "reused within batches"
