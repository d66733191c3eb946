"""Spool and ledger on file systems of a few megabytes, which really run full, each in a mount namespace of its own.

No matter which file system runs full and what filled it: A700 and nothing else is answered, instances answered 0000 stay,
deliveries go on being recorded and bytes released, and reception goes on by itself once there is room.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, threading
sys.path.insert(0, ".")
from pathlib import Path
from sqlalchemy import update
from gateway.core.errors import Refusal
from gateway.intake import Releaser, recover
from gateway.ledger import Ballast, Ledger; from gateway.ledger.received import instances
from gateway.ledger.database.schema import deliveries
from gateway.spool import Spool
from tests.support.storing import ASSOCIATION, data_set, read, request, store, taking

folder, full, size, threads, reserve = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
state = folder / "state"
answered, refused, lock = [], 0, threading.Lock()


def opened():
    ballast = Ballast(state / "ledger.ballast")
    ballast.take()
    assert (state / "ledger.ballast").exists()
    spool = Spool(state / "spool", reserve_bytes=reserve, withheld=lambda: ballast.missing_bytes)
    return spool, Ledger(state / "ledger.db", ballast=ballast)


def fill(where):
    # Another program takes every byte, or every inode, that it can get.
    taken = []
    if full.endswith("inodes"):
        try:
            while True:
                taken.append(where / f"foreign-{len(taken)}")
                taken[-1].touch()
        except OSError:
            taken.pop()
        return taken
    with (where / "foreign").open("wb", buffering=0) as file:
        try:
            for chunk in (65536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(chunk))
                except OSError:
                    pass
        finally:
            return [where / "foreign"]


def taken(intake, uid, data):
    reception = intake.receive(ASSOCIATION, request(uid))
    try:
        for start in range(0, len(data), 50_000):
            reception.write([memoryview(data)[start : start + 50_000]])
        assert reception.commit() == 0
    finally:
        reception.discard()


def send(intake, numbers):
    global refused
    for number in numbers:
        uid = f"1.2.{number}"
        try:
            taken(intake, uid, data_set(uid, filler=bytes(number % 7 * size)))
            with lock:
                answered.append(uid)
        except Refusal as refusal:
            assert refusal.status == 0xA700, hex(refusal.status)
            with lock:
                refused += 1
            if refused >= 20 * threads:
                return


def settle(ledger, spool, releaser):
    # On a full disk, too, deliveries are recorded and their bytes released.
    ledger.write(lambda connection: connection.execute(update(deliveries).values(state="verified")).rowcount)
    released = releaser.run_once(limit=100_000)
    assert released, "nothing was released"
    return released


def main():
    spool, ledger = opened()
    with spool, ledger, taking(spool, ledger, route=lambda attributes: {"a": None}) as intake:
        releaser = Releaser(spool, ledger, history_s=1e9)
        send(intake, range(40))
        intake.recorder.flush()
        assert len(answered) == 40
        foreign = []
        if full.startswith("spool"):
            # It runs full by what is received.
            each = 4000
        else:
            foreign = fill(state if full.startswith("ledger") else folder)
            each = 200
        send_all = [
            threading.Thread(target=send, args=(intake, range(1000 * (1 + thread), 1000 * (1 + thread) + each)))
            for thread in range(threads)
        ]
        for one in send_all:
            one.start()
        for one in send_all:
            one.join()
        assert refused or full not in ("spool", "foreign"), len(answered)
        intake.recorder.flush()
        assert settle(ledger, spool, releaser) >= 40
        for path in foreign:
            path.unlink()
        store(intake, request("1.3"), data_set("1.3"))
        answered.append("1.3")
    spool, ledger = opened()
    with spool, ledger:
        report = recover(spool, ledger, route=lambda attributes: {"a": None})
        assert (report.missing, report.corrupt) == (0, 0), report
        with ledger.read() as connection:
            kept = {uid: instances.find(connection, uid) for uid in answered}
        assert all(len(found) == 1 for found in kept.values())
        owed = [(uid, found[0]) for uid, found in kept.items() if found[0].bytes_state == "kept"]
        assert all(uid.encode() in read(spool, one.content) for uid, one in owed)
        assert "1.3" in dict(owed)
    print("nothing lost", refused, len(answered))


main()
"""

BOTH, APART = 48, 24

# Name of the full file system, its megabytes, its inodes, bytes by which instances differ, threads, reserve
WAYS = {
    "by what is received, small": ("spool", BOTH, 10_000, 3_000, 1, 1 << 24),
    "by what is received, large": ("spool", BOTH, 10_000, 100_000, 1, 1 << 24),
    "by what is received, on four associations": ("spool", BOTH, 10_000, 30_000, 4, 1 << 24),
    "by what is received, with a large reserve": ("spool", BOTH, 10_000, 10_000, 2, 30 << 20),
    "by what is received, with no reserve": ("spool", BOTH, 10_000, 100_000, 1, 0),
    "by another program": ("foreign", BOTH, 10_000, 10_000, 1, 1 << 24),
    "by another program, on four associations": ("foreign", BOTH, 10_000, 10_000, 4, 1 << 24),
    "by another program, small": ("foreign", BOTH, 10_000, 100, 1, 1 << 24),
    "the inodes, by another program": ("foreign-inodes", BOTH, 400, 20_000, 1, 1 << 24),
    "the inodes, on four associations": ("foreign-inodes", BOTH, 400, 20_000, 4, 1 << 24),
    "the ledger's file system": ("ledger", APART, 10_000, 1_000, 1, 1 << 20),
    "the ledger's file system, on four associations": ("ledger", APART, 10_000, 1_000, 4, 1 << 20),
    "the ledger's inodes": ("ledger-inodes", APART, 300, 1_000, 1, 1 << 20),
}


def may_unshare() -> bool:
    return sys.platform == "linux" and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="a file system of its own needs the right to mount")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_full_disk_is_a700_and_nothing_answered_is_lost(tmp_path: Path, way: tuple[str, int, int, int, int, int]) -> None:
    full, megabytes, inodes, size, threads, reserve = way
    mounts = [f"mount -t tmpfs -o size={megabytes}m,nr_inodes={inodes} none {tmp_path}", f"mkdir {tmp_path}/state"]
    if full.startswith("ledger"):
        spool = tmp_path / "state" / "spool"
        mounts += [f"mkdir {spool}", f"mount -t tmpfs -o size=64m none {spool}"]
    run = f"exec {sys.executable} - {tmp_path} {full} {size} {threads} {reserve}"
    command = ["unshare", "-m", "sh", "-c", " && ".join([*mounts, run])]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, timeout=110, check=False, cwd=root)
    assert "nothing lost" in result.stdout, result.stderr[-2500:]
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "refused" in line]
    assert len(lines) <= 3, "a line a minute for each reason, however many were refused"
