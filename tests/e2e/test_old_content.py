"""An archive that answers success and keeps what it had is never called proof of what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from gateway.core.domain import Proof
from tests.support.dcmtk import dcmqrscp, storescu
from tests.support.gateway import Gateway, arrivals, deliveries, dicom_destination, settled, source
from tests.support.orthanc import DICOMWEB_PLUGIN, HOST, Orthanc, orthanc
from tests.support.waiting import wait_until

pytestmark = pytest.mark.peers

BEFORE = "exists (was there before)"


def changed(path: Path, to: Path, **values: object) -> Path:
    """Write a copy of an instance with other values, or another pixel, under the same UIDs."""
    dataset = dcmread(path)
    for keyword, value in values.items():
        if keyword == "pixel":
            dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
        else:
            setattr(dataset, keyword, value)
    to.parent.mkdir(exist_ok=True)
    dataset.save_as(to)
    return to


def rest(peer: Orthanc) -> dict[str, Any]:
    return {"url": str(peer.rest.base_url)}


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path / "gateway")


def to(peer: Orthanc, **more: Any) -> dict[str, Any]:
    return dicom_destination(peer.port, ae_title=peer.ae_title, quiet_s=0.2, **more)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_there_before_is_no_proof_of_ours(gateway: Gateway, tmp_path: Path, ct_series: Any, overwrite: bool) -> None:
    old, new = ct_series(2)
    other = changed(old, tmp_path / "in" / "other.dcm", PatientComments="other content")
    known = {"GATEWAY": (HOST, gateway.port)}
    with orthanc(tmp_path / "o", OverwriteInstances=overwrite, DicomAlwaysAllowGet=True, modalities=known) as peer:
        peer.upload([old])
        gateway.write(
            destinations={
                "list": to(peer),
                "commitment": to(peer, verify="commitment", commitment_timeout_s=5),
                "status": to(peer, verify="status"),
                "digest": to(peer, verify="digest", rest=rest(peer)),
                "get": to(peer, verify="digest"),
            }
        )
        names = ("list", "commitment", "status", "digest", "get")
        done = gateway.run("send", other, new, *[each for name in names for each in ("--to", name)])
        rows = {(row.uid, row.destination): row for row in deliveries(gateway)}
        mine, fresh = str(dcmread(old).SOPInstanceUID), str(dcmread(new).SOPInstanceUID)
        assert rows[mine, "list"].proof == rows[mine, "commitment"].proof == BEFORE == Proof.BEFORE
        assert rows[mine, "status"].proof == "status"
        assert f"1 {BEFORE}" in done.stdout or BEFORE in done.stdout
        for name in ("digest", "get"):
            row = rows[mine, name]
            assert (row.state, row.proof) == (("verified", "digest") if overwrite else ("held", None)), row
            assert overwrite or row.reason.endswith("PatientComments"), row.reason
            assert rows[fresh, name].proof == "digest"
        assert done.returncode == (0 if overwrite else 1), done.stdout
        assert gateway.json("queue", "list", "--state", "verified")["total"] == (10 if overwrite else 8)
        status = gateway.json("status")
        assert {one["name"]: one["was_there"] for one in status["destinations"]}["list"] >= 1


@pytest.mark.parametrize("values", [{"pixel": 1}, {"PatientSex": "O"}, {"StudyDescription": "x"}, {"InstanceNumber": "77"}])
def test_content_that_differs_anywhere_is_held(gateway: Gateway, tmp_path: Path, ct_series: Any, values: dict[str, Any]) -> None:
    (old,) = ct_series(1)
    other = changed(old, tmp_path / "in" / "other.dcm", **values)
    web = {"Plugins": [str(DICOMWEB_PLUGIN)]}
    with orthanc(tmp_path / "o", OverwriteInstances=False, **web) as peer:
        peer.upload([old])
        gateway.write(
            destinations={
                "rest": to(peer, verify="digest", rest=rest(peer), ask="ledger"),
                "web": to(peer, verify="digest", dicomweb={"url": f"{peer.rest.base_url}/dicom-web"}),
            }
        )
        done = gateway.run("send", other, "--to", "rest", "--to", "web")
        rows = deliveries(gateway)
        assert [row.state for row in rows] == ["held", "held"], [row.reason for row in rows]
        (what,) = values
        assert {row.reason.rpartition(": ")[2] for row in rows} == {"pixels" if what == "pixel" else what}
        assert done.returncode == 1
        assert "other content" in done.stdout


def test_real_files_that_are_stored_are_the_same(gateway: Gateway, tmp_path: Path, real_files: list[Path]) -> None:
    with orthanc(tmp_path / "o", OverwriteInstances=False) as peer:
        gateway.write(destinations={"pacs": to(peer, verify="digest", rest=rest(peer))})
        gateway.run("send", *real_files, "--to", "pacs", deadline_s=240)
        rows = [row for row in deliveries(gateway) if row.state != "held" or "holds other content" in row.reason]
    assert len(rows) > 50
    assert {(row.state, row.proof) for row in rows} == {("verified", "digest")}, [
        (row.uid, row.reason) for row in rows if row.proof != "digest"
    ]


def test_what_we_brought_ourselves_stays_ours(gateway: Gateway, tmp_path: Path, ct_series: Any) -> None:
    files = ct_series(3)
    with orthanc(tmp_path / "o", OverwriteInstances=False) as peer:
        gateway.write(destinations={"pacs": to(peer)})
        assert gateway.run("send", *files, "--to", "pacs").returncode == 0
        with gateway.serving():
            storescu(gateway.port, *files)
            wait_until(lambda: arrivals(gateway) == 6, "they came again")
            rows = settled(gateway, 3, "verified")
    assert {row.proof for row in rows} == {"exists"}


def test_without_a_way_to_fetch_the_list_is_asked(gateway: Gateway, tmp_path: Path, ct_series: Any) -> None:
    with orthanc(tmp_path / "o", OverwriteInstances=False) as peer:
        gateway.write(destinations={"pacs": to(peer, verify="digest", dicomweb={"url": str(peer.rest.base_url) + "/nothing"})})
        assert gateway.run("send", *ct_series(2), "--to", "pacs").returncode == 0
        rows = deliveries(gateway)
    assert {row.proof for row in rows} == {"exists"}
    assert all(row.reason.startswith("contents not compared: ") for row in rows), rows


@pytest.mark.parametrize("verify", ["exists", "commitment"])
def test_a_pull_says_which_instances_were_there_before(gateway: Gateway, tmp_path: Path, ct_series: Any, verify: str) -> None:
    files = ct_series(5)
    old = changed(files[0], tmp_path / "old" / "old.dcm", PatientComments="older content")
    known = {"GATEWAY": (HOST, gateway.port)}
    with (
        dcmqrscp(tmp_path / "archive", hosts=known, files=files) as archive,
        orthanc(tmp_path / "o", OverwriteInstances=False, modalities=known) as peer,
    ):
        peer.upload([old])
        gateway.write(
            sources={"archive": source(archive.port, settle_s=0.3)},
            destinations={"pacs": to(peer, verify=verify, commitment_timeout_s=10)},
        )
        done = gateway.run("pull", "archive", "--accession", "ACC1")
        assert done.returncode == 0, done.stdout + done.stderr
        again = gateway.run("pull", "archive", "--accession", "ACC1")
        status = gateway.json("status")
        shown = gateway.run("status").stdout
        mine = str(dcmread(old).SOPInstanceUID)
        document = gateway.json("queue", "show", str(numbered(gateway, mine)))
        kept = peer.rest.get(f"/instances/{peer.instances()[mine]}/simplified-tags").json()["PatientComments"]
    rows = {row.uid: row.proof for row in deliveries(gateway)}
    assert rows.pop(mine) == BEFORE
    assert set(rows.values()) == {verify}
    for told in (done.stdout, again.stdout):
        assert f"5/5 verified (4 {verify}, 1 {BEFORE})" in told or f"5/5 verified (1 {BEFORE}, 4 {verify})" in told, told
    assert [one["was_there"] for one in status["destinations"]] == [1]
    assert "5 verified; 1 instance was there before" in shown, shown
    assert BEFORE in str(document)
    assert kept == "older content"


def numbered(gateway: Gateway, uid: str) -> int:
    (entry,) = [one for one in gateway.json("queue", "list", "--state", "verified")["entries"] if one["sop_instance_uid"] == uid]
    return int(entry["id"])


def test_commitment_proves_what_we_brought_and_not_what_was_there(gateway: Gateway, tmp_path: Path, ct_series: Any) -> None:
    files = ct_series(4)
    others = [changed(path, tmp_path / "in" / path.name, PatientComments="other content") for path in files[:2]]
    known = {"GATEWAY": (HOST, gateway.port)}
    with orthanc(tmp_path / "o", OverwriteInstances=False, modalities=known) as peer:
        peer.upload(files[:2])
        gateway.write(destinations={"pacs": to(peer, verify="commitment", commitment_timeout_s=10)})
        with gateway.serving():
            storescu(gateway.port, *others, *files[2:])
            rows = {row.uid: row.proof for row in settled(gateway, 4, "verified")}
            shown = gateway.run("status").stdout
        done = gateway.run("send", *others, *files[2:], "--to", "pacs")
    there = [str(dcmread(path).SOPInstanceUID) for path in files]
    assert [rows[uid] for uid in there] == [BEFORE, BEFORE, "commitment", "commitment"]
    assert "4 verified; 2 instances were there before" in shown, shown
    assert done.returncode == 0
    assert BEFORE in done.stdout
