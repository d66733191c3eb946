"""Senders, end to end: real tools, every transfer syntax, TLS, and associations that end in the middle."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import comparing, data, dcmtk, raw
from tests.support.certificates import Files, MakeCertificate, TestCA
from tests.support.data import MakeSeries
from tests.support.gateway import Gateway, arrivals, deliveries, folder_destination, settled
from tests.support.load import Ledger, Template, files_in, in_folder, lost
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@contextmanager
def archiving(folder: Path, **tables: object) -> Iterator[tuple[Gateway, Path]]:
    """A gateway that brings everything into a folder."""
    archive = folder / "archive"
    gateway = Gateway(folder / "gateway", {"destinations": {"archive": folder_destination(archive)}, **tables})
    with gateway.serving():
        yield gateway, archive


def held(archive: Path) -> dict[str, Path]:
    """Return SOP Instance UID to file of everything in a folder destination."""
    return {data.identity(path)[2]: path for path in files_in(archive)}


@pytest.mark.peers("dcmsend")
def test_real_files_of_every_transfer_syntax_arrive_as_they_were_sent(tmp_path: Path, real_files: tuple[Path, ...]) -> None:
    originals = {data.identity(path)[2]: path for path in real_files}
    with archiving(tmp_path) as (gateway, archive):
        dcmtk.dcmsend(gateway.port, data.copy_all(real_files, tmp_path / "files"))
        settled(gateway, len(originals), "verified")
        found = held(archive)
        assert set(found) == set(originals)
        assert {uid: what for uid in originals if (what := comparing.differences(originals[uid], found[uid]))} == {}


@pytest.mark.parametrize("moment", ["before the data set", "within the data set", "after the data set, before the answer"])
@pytest.mark.parametrize("end", ["abort", "close"])
def test_an_association_that_ends_midway_leaves_nothing_half_stored(tmp_path: Path, moment: str, end: str) -> None:
    template = Template(tmp_path / "template", rows=256)
    uid = "1.2.826.0.1.3680043.10.1338.7"
    with archiving(tmp_path) as (gateway, archive):
        scu = raw.RawRequestor(gateway.port)
        parts = list(scu.fragments([template.instance(uid)]))
        assert len(parts) > 1
        wanted = {"before the data set": [], "within the data set": parts[:1]}.get(moment, parts)
        for part in (scu.request(uid), *wanted):
            scu.send(part)
        scu.abort() if end == "abort" else scu.close()
        if wanted is not parts:
            assert deliveries(gateway) == []
        sent = Ledger(template)
        assert sent.load(gateway.port, associations=1, each=1)
        wait_until(lambda: sent.acknowledged <= set(held(archive)), "the next instance delivered")
        assert lost(in_folder(archive), sent) == set()


@pytest.mark.peers("storescu")
def test_senders_over_mutual_tls_are_let_in_by_certificate_only(
    tmp_path: Path, certificate: MakeCertificate, ca: TestCA, ct_series: MakeSeries
) -> None:
    files, port = ct_series(3), free_port()
    secure = {"plain": False, "tls": {"port": port, **dict(certificate("gateway"))}}
    archive = tmp_path / "archive"
    gateway = Gateway(tmp_path / "gateway", {"destinations": {"archive": folder_destination(archive)}, "listen": secure}, port)
    gateway.write(listen={**secure, "port": free_port()})
    with gateway.serving():
        dcmtk.storescu(port, *files, tls=certificate("modality"))
        stranger: Files = {**ca.issue("stranger"), "ca": certificate("gateway")["ca"]}
        assert dcmtk.storescu(port, *files, tls=stranger, check=False).returncode != 0
        with pytest.raises((raw.Ended, ssl.SSLError, OSError)):
            raw.RawRequestor(port, timeout_s=5.0)
        settled(gateway, 3, "verified")
    assert set(held(archive)) == {data.identity(path)[2] for path in files}


@pytest.mark.peers("storescu")
def test_the_same_again_is_one_instance_and_other_content_is_a_conflict(tmp_path: Path, ct_series: MakeSeries) -> None:
    (first,), (other,) = ct_series(1, rows=32), ct_series(1, rows=48)
    assert data.identity(first)[2] == data.identity(other)[2]
    with archiving(tmp_path) as (gateway, archive):
        for number, path in enumerate((first, first, other), start=1):
            # One after the other: what is superseded before it was delivered is held.
            dcmtk.storescu(gateway.port, path)
            wait_until(lambda number=number: arrivals(gateway) == number, "recorded")
            settled(gateway, 1 if path is first else 2, "verified")
        wait_until(lambda: [row.state for row in deliveries(gateway)] == ["verified", "verified"], "two contents, both settled")
        (file,) = held(archive).values()
        assert comparing.differences(other, file) == [], "the newer one is delivered"
        (conflict,) = gateway.json("status")["conflicts"]
        assert conflict["sop_instance_uid"] == data.identity(first)[2]
