"""Memory stays bounded whatever comes: many instances over many associations, and one instance larger than the bound itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import raw
from tests.support.gateway import Gateway, dicom_destination, peak_resident_mib
from tests.support.load import Ledger, Template
from tests.support.scripted_scp import ScriptedScp
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT_MIB = 300
INSTANCES = int(os.environ.get("GATEWAY_TEST_INSTANCES", "10000"))
ASSOCIATIONS = 8
MULTI_FRAME_BYTES = int(os.environ.get("GATEWAY_TEST_MULTI_FRAME_BYTES", str(2 << 30)))


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """The spools of these tests are large; pytest keeps the folders of failed and recent runs."""
    yield
    shutil.rmtree(tmp_path)


def test_10000_instances_over_8_associations_stay_under_300_mib(tmp_path: Path) -> None:
    template = Template(tmp_path / "template", rows=512)  # 512 KiB of pixels
    sent = Ledger(template)
    with ScriptedScp().running() as destination:
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"peer": dicom_destination(destination.port, verify="status")}})
        with gateway.serving() as process:
            assert sent.load(gateway.port, associations=ASSOCIATIONS, each=INSTANCES // ASSOCIATIONS)
            wait_until(lambda: len(destination.stores) >= sent.sent, "everything delivered", deadline_s=300, pause_s=0.2)
            peak = peak_resident_mib(process)
    print(f"{sent.sent} instances: at most {peak:.0f} MiB resident")
    assert sent.statuses == {0}
    assert set(destination.uids) == sent.acknowledged
    assert peak < LIMIT_MIB


def test_one_multi_frame_instance_of_two_gib_stays_under_300_mib(tmp_path: Path) -> None:
    uid, length = "1.2.826.0.1.3680043.10.1338.900", 0
    with ScriptedScp().running() as destination:
        gateway = Gateway(tmp_path / "gateway", {"destinations": {"peer": dicom_destination(destination.port, verify="status")}})
        with gateway.serving() as process:
            with raw.RawRequestor(gateway.port, timeout_s=300) as scu:
                head, pixels = _multi_frame(uid)
                length = len(head) + MULTI_FRAME_BYTES
                assert scu.store(uid, _chain(head, pixels)) == 0
            wait_until(lambda: destination.stores, "the instance delivered", deadline_s=300, pause_s=0.1)
            peak = peak_resident_mib(process)
    print(f"{length} bytes in one instance: at most {peak:.0f} MiB resident")
    assert [(store.uid, store.length) for store in destination.stores] == [(uid, length)]
    assert peak < LIMIT_MIB


def _multi_frame(uid: str) -> tuple[bytes, Iterator[bytes]]:
    """Return the head of a data set up to the pixel data's value, and the value in pieces that are never all in memory."""

    def element(group: int, number: int, vr: str, value: bytes) -> bytes:
        padded = value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
        return group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr.encode() + len(padded).to_bytes(2, "little") + padded

    head = element(0x0008, 0x0016, "UI", raw.CT.encode()) + element(0x0008, 0x0018, "UI", uid.encode())
    head += element(0x0008, 0x0060, "CS", b"CT") + element(0x0010, 0x0020, "LO", b"LARGE")
    head += element(0x0020, 0x000D, "UI", f"{uid}.1".encode()) + element(0x0020, 0x000E, "UI", f"{uid}.2".encode())
    head += b"\xe0\x7f\x10\x00OW\0\0" + MULTI_FRAME_BYTES.to_bytes(4, "little")
    piece = bytes(range(256)) * 4096
    return head, (piece[: min(len(piece), MULTI_FRAME_BYTES - at)] for at in range(0, MULTI_FRAME_BYTES, len(piece)))


def _chain(head: bytes, pixels: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pixels


def test_many_associations_that_send_little_cost_little(tmp_path: Path) -> None:
    template = Template(tmp_path / "template")
    sent = Ledger(template)
    gateway = Gateway(tmp_path / "gateway")
    with gateway.serving() as process:
        with ThreadPoolExecutor(8) as pool:
            assert all(list(pool.map(lambda _: sent.send(gateway.port, 2), range(200))))
        assert peak_resident_mib(process) < LIMIT_MIB / 2
    assert sent.statuses == {0}
