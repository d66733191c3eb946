"""Spool and ledger on a file system of a few megabytes, which really runs full."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, ".")
from pathlib import Path
from gateway.errors import Refusal
from gateway.intake import recover
from gateway.ledger import Ledger, instances
from gateway.spool import Spool
from tests.support.storing import answer, data_set, read, request, store, taking

state = Path(sys.argv[1]) / "state"
state.mkdir()
ballast = Path(sys.argv[1]) / "ballast"
ballast.write_bytes(bytes(2_000_000))
answered = []
refused = 0
with (
    Spool(state / "spool", reserve_bytes=0) as spool,
    Ledger(state / "ledger.sqlite") as ledger,
    taking(spool, ledger, route=lambda attributes: {"a": None}) as intake,
):
    for number in range(3000):
        uid = f"1.2.{number}"
        try:
            answer(intake, request(uid), data_set(uid, filler=bytes(number % 7 * 1000)))
            answered.append(uid)
        except Refusal as refusal:
            assert refusal.status == 0xA700, hex(refusal.status)
            refused += 1
        if refused == 50:
            break
    assert answered and refused == 50, (len(answered), refused)
    ballast.unlink()
    store(intake, request("1.3"), data_set("1.3"))
    answered.append("1.3")
with Spool(state / "spool", reserve_bytes=0) as spool, Ledger(state / "ledger.sqlite") as ledger:
    report = recover(spool, ledger, route=lambda attributes: {"a": None})
    assert (report.missing, report.corrupt) == (0, 0), report
    with ledger.read() as connection:
        kept = {uid: instances.find(connection, uid) for uid in answered}
    assert all(len(found) == 1 for found in kept.values())
    assert all(uid.encode() in read(spool, found[0].content) for uid, found in kept.items())
print("nothing lost")
"""


def may_unshare() -> bool:
    return sys.platform == "linux" and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="a file system of its own needs the right to mount")
def test_a_full_disk_is_a700_and_what_was_answered_0000_stays(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=6m none {tmp_path} && exec {sys.executable} - {tmp_path}"
    command = ["unshare", "-m", "sh", "-c", mount]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    assert result.stdout.endswith("nothing lost\n"), result.stderr[-2000:]
