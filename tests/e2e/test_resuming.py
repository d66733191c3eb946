"""Commands that are killed in the middle: the same command again carries on and ends complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import data
from tests.support.gateway import Gateway, deliveries, dicom_destination, settled, source
from tests.support.orthanc import orthanc
from tests.support.ports import HOST
from tests.support.processes import Running
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.mark.peers("Orthanc")
@pytest.mark.parametrize("operation", ["move", "get"])
def test_a_pull_that_was_killed_is_completed_by_the_same_command(tmp_path: Path, operation: str) -> None:
    studies = [data.ct_series(tmp_path / f"study-{seed}", 25, rows=128, seed=seed) for seed in range(1, 5)]
    with ScriptedScp().running() as peer:
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"peer": dicom_destination(peer.port, verify="status")}})
        known = {"GATEWAY": (HOST, gateway.port)} if operation == "move" else {}
        with orthanc(tmp_path / "source", ae_title="SOURCE", modalities=known, DicomAlwaysAllowGet=True) as archive:
            archive.upload(path for files in studies for path in files)
            gateway.write(sources={"archive": source(archive.port, ae_title="SOURCE", retrieve=operation)})
            asked = [part for uid in archive.studies() for part in ("--study", uid)]
            with Running(gateway.command("pull", "archive", *asked, "--json"), cwd=gateway.folder) as pulling:
                wait_until(lambda: len(peer.stores) >= 30, "some of it delivered")
                pulling.kill()
                interrupted = len(peer.stores)
            recorded = [row.state for row in deliveries(gateway)].count("verified")
            summary = gateway.json("pull", "archive", *asked)
    assert [study["kind"] for study in summary["studies"]] == ["complete"] * 4
    assert set(peer.uids) == {data.identity(path)[2] for files in studies for path in files}
    assert len(peer.uids) <= 100 + interrupted - recorded, "what was recorded is not sent again"


def test_a_send_that_was_killed_sends_only_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    data.ct_copies(folder, 300, rows=64)
    with ScriptedScp().running() as peer:
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"peer": dicom_destination(peer.port, verify="status")}})
        with Running(gateway.command("send", folder, "--to", "peer", "--json"), cwd=gateway.folder) as sending:
            wait_until(lambda: len(peer.stores) >= 40, "some of it sent")
            sending.kill()
            interrupted = len(peer.stores)
        known = [row.state for row in deliveries(gateway)].count("verified")
        done = gateway.run("send", folder, "--to", "peer", "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        again = gateway.run("send", folder, "--to", "peer", "--json")
        assert again.returncode == 0, again.stderr[-2000:]
    assert len(set(peer.uids)) == 300
    assert len(peer.uids) <= 300 + interrupted - known, "what was recorded is not sent again"


def test_a_delivery_interrupted_by_a_kill_is_sent_again(tmp_path: Path) -> None:
    files = data.ct_series(tmp_path / "files", 3)
    with ScriptedScp(answer=lambda nth, _store: "hang" if nth == 2 else 0).running() as peer:
        table = dicom_destination(peer.port, verify="status", associations=1, idle_close_s=1.0)
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"peer": table}})
        with Running(gateway.command("send", tmp_path / "files", "--to", "peer"), cwd=gateway.folder) as sending:
            wait_until(lambda: len(peer.stores) == 2, "the second one unanswered")
            wait_until(lambda: [row.state for row in deliveries(gateway)].count("verified") == 1, "the first one recorded")
            sending.kill()
        with gateway.serving():
            settled(gateway, 3, "verified")
    assert len(peer.uids) == len(files) + 1
