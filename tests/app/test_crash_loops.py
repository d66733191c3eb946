"""A job that ends the process, however it does, is not begun a third time by itself; one that fails is a failed job."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from tests.retrieve.conftest import study
from tests.support.gateway import Gateway, folder_destination, source
from tests.support.pacs import Pacs
from tests.support.ports import HOST, free_port, listens
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DAY = ("--from", "2024-02-28", "--to", "2024-03-01")


class Deadly(Pacs):
    """A source whose answers end whoever asked: the gateway's process, which a test names, gets a signal before the answer."""

    victim: Running | None = None
    by: signal.Signals = signal.SIGKILL

    def _match(self, *arguments: Any) -> Dataset:
        if self.victim is not None:
            os.kill(self.victim.pid, self.by)
        return super()._match(*arguments)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path / "gateway", {"destinations": {"copy": folder_destination(tmp_path / "copy")}}, port=free_port())


def serve(gateway: Gateway) -> Running:
    process = Running(gateway.command("serve"), cwd=gateway.folder)
    wait_until(lambda: listens(gateway.port) or not process.alive(), "the gateway listens", deadline_s=60)
    return process


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_migration_that_ended_the_gateway_twice_is_left_to_a_person(gateway: Gateway, by: signal.Signals) -> None:
    pacs = Deadly({"GATEWAY": (HOST, gateway.port)}, study(seed=1, series=(2,)))
    pacs.by = by
    with pacs.running():
        gateway.write(sources={"archive": source(pacs.port, settle_s=0.3)})
        pacs.victim = serve(gateway)
        gateway.run("migrate", "archive", *DAY, "--destination", "copy", "--detach")
        assert pacs.victim.wait(60) == -by
        pacs.victim = serve(gateway)
        assert pacs.victim.wait(60) == -by

        running = pacs.victim = serve(gateway)
        try:
            assert running.alive()
            (job,) = gateway.json("jobs", "list")["jobs"]
            assert job["state"] == "not begun again" and "gateway jobs resume 1" in job["note"]
            assert "migration 1 is NOT begun again" in gateway.run("status").stdout
            assert [one["resume"] for one in gateway.json("status")["not_begun"]] == ["gateway jobs resume 1"]

            pacs.victim = None
            assert gateway.run("jobs", "resume", "1").returncode == 0
            wait_until(lambda: gateway.json("jobs", "show", "1")["state"] == "done", "it is done", deadline_s=60, pause_s=0.3)
            assert gateway.json("status")["not_begun"] == []
        finally:
            running.stop()


def test_a_sync_that_ended_the_gateway_twice_is_left_to_a_person(gateway: Gateway) -> None:
    pacs = Deadly({"GATEWAY": (HOST, gateway.port)}, study(seed=1, series=(2,)))
    with pacs.running():
        sync = {"name": "night", "source": "archive", "to": ["copy"], "last": "10000d", "interval_s": 1}
        gateway.write(sources={"archive": source(pacs.port, settle_s=0.3)}, sync=[sync])
        for _ in range(2):
            # It may be killed before it is told that it was started.
            pacs.victim = Running(gateway.command("serve"), cwd=gateway.folder)
            assert pacs.victim.wait(60) == -signal.SIGKILL
        running = pacs.victim = serve(gateway)
        try:
            wait_until(lambda: gateway.json("status")["not_begun"], "it is said", deadline_s=60, pause_s=0.3)
            (parked,) = gateway.json("status")["not_begun"]
            assert (parked["name"], parked["resume"]) == ("sync night", "gateway jobs resume 'sync night'")
            assert running.alive()
            pacs.victim = None
            assert gateway.run("jobs", "resume", "sync night").returncode == 0
            wait_until(lambda: gateway.json("status")["syncs"][0]["cycle"], "it looks", deadline_s=60, pause_s=0.3)
            assert gateway.json("status")["not_begun"] == []
        finally:
            running.stop()


def test_stopping_in_order_is_no_crash_however_often(gateway: Gateway) -> None:
    gateway.write(sources={"archive": source(free_port(), settle_s=0.3)})
    process = serve(gateway)
    gateway.run("migrate", "archive", *DAY, "--destination", "copy", "--detach")
    for _ in range(3):
        assert process.stop() == 0
        process = serve(gateway)
    (job,) = gateway.json("jobs", "list")["jobs"]
    assert job["state"] != "not begun again" and gateway.json("status")["not_begun"] == []
    assert process.stop() == 0


def test_what_does_not_wait_cannot_be_begun(gateway: Gateway) -> None:
    with gateway.serving():
        done: subprocess.CompletedProcess[str] = gateway.run("jobs", "resume", "sync none")
    assert done.returncode == 2 and "does not wait" in done.stderr
