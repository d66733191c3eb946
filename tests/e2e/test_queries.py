"""A running gateway whose sources answer queries without an end or with far too much: it stays small and answers others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.support.finding import Endless, Finder
from tests.support.gateway import Gateway, peak_resident_mib, source
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIMIT_MIB = 300
HUGE_BYTES = 15 * 1024 * 1024


def study(uid: str, huge: bytes = b"") -> Dataset:
    match = Dataset()
    match.StudyInstanceUID, match.PatientID = uid, "P1"
    if huge:
        match.add_new(0x00091010, "OB", huge)
    return match


def test_commands_that_leave_an_endless_source_leave_nothing_behind(tmp_path: Path) -> None:
    stuck, fine = Endless(lambda _keys: ([study("1.2.3")], 0)), Finder(lambda _keys: ([study("1.2.4")], 0))
    with stuck.running(), fine.running():
        gateway = Gateway(tmp_path / "gateway", {"sources": {"stuck": source(stuck.port), "fine": source(fine.port)}})
        with gateway.serving():
            command = gateway.command("find", "stuck", "PatientID=P1")
            left = [subprocess.Popen(command, cwd=gateway.folder, stdout=subprocess.DEVNULL) for _ in range(4)]
            wait_until(lambda: len(stuck.asked) >= len(left), "the queries", deadline_s=60)
            for one in left:
                one.kill()
                one.wait()
            wait_until(lambda: stuck.cancelled >= len(left), "C-CANCEL for each", deadline_s=60)
            assert gateway.json("find", "fine", "PatientID=P1")["matches"][0]["StudyInstanceUID"] == "1.2.4"


def test_matches_of_fifteen_mib_each_stay_under_300_mib(tmp_path: Path) -> None:
    huge = bytes(HUGE_BYTES)
    fat = Finder(lambda _keys: ([study(f"1.2.3.{number}", huge) for number in range(40)], 0))
    with fat.running():
        gateway = Gateway(tmp_path / "gateway", {"sources": {"fat": source(fat.port)}})
        with gateway.serving() as process:
            found = gateway.json("find", "fat", "PatientID=P1")["matches"]
            peak = peak_resident_mib(process)
    print(f"40 matches of {HUGE_BYTES} bytes: at most {peak:.0f} MiB resident")
    assert [match["StudyInstanceUID"] for match in found] == [f"1.2.3.{number}" for number in range(40)]
    assert peak < LIMIT_MIB
