"""A whole gateway on file systems of a few megabytes that run full: it refuses, says so once, and goes on by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import subprocess, sys
sys.path.insert(0, ".")
from pathlib import Path
from tests.support.gateway import Gateway
from tests.support.load import Ledger, Template, files_in, in_folder, lost
from tests.support.waiting import wait_until

state, archive, full, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
retry = {"attempts": 1000, "first_s": 0.5, "max_s": 1.0}
destination = {"kind": "folder", "path": archive / "kept", "retry": retry, "transfer_syntax": mode}
gateway = Gateway(state / "gateway", {"destinations": {"archive": destination}})
sent = Ledger(Template(state / "template", rows=256))


def fill(folder):
    with (folder / "foreign").open("wb", buffering=0) as file:
        for chunk in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(chunk))
            except OSError:
                pass


def refused():
    assert sent.load(gateway.port, associations=2, each=25), "the association goes on"
    assert sent.statuses <= {0, 0xA700}, sent.statuses
    return 0xA700 in sent.statuses


def taken():
    before = len(sent.acknowledged)
    assert sent.load(gateway.port, associations=1, each=1)
    return len(sent.acknowledged) > before


def there():
    return len(files_in(archive)) == len(sent.acknowledged) if mode != "as-is" else not lost(in_folder(archive), sent)


with gateway.serving() as process:
    assert sent.load(gateway.port, associations=1, each=3)
    wait_until(there, "the first ones are delivered", deadline_s=60)
    if "archive" in full:
        fill(archive)
    if "state" in full:
        fill(state)
    for _ in range(60):
        if refused():
            break
    else:
        raise AssertionError("the disk never ran full")
    for _ in range(4):
        refused()
    assert process.alive(), process.output
    told = [line for line in process.output.splitlines() if "_refused" in line]
    assert 1 <= len(told) <= 4, told
    for folder in (state, archive):
        (folder / "foreign").unlink(missing_ok=True)
    wait_until(taken, "an instance is taken again", deadline_s=45)
    wait_until(there, "what was answered 0000 is in the archive", deadline_s=100)
print("nothing lost", len(sent.acknowledged), "of", sent.sent)
"""

WAYS = {
    "the destination, then the spool": ("archive", 72, 64, "as-is"),
    "spool and ledger, by another program": ("state", 72, 64, "as-is"),
    "everything": ("archive state", 72, 64, "as-is"),
    "spool and ledger, while transcoding": ("state", 72, 64, "j2k-lossless"),
    "everything, while transcoding": ("archive state", 72, 64, "j2k-lossless"),
}


def may_unshare() -> bool:
    return sys.platform == "linux" and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(400)
@pytest.mark.skipif(not may_unshare(), reason="a file system of its own needs the right to mount")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_gateway_on_a_full_disk_goes_on_by_itself_once_there_is_room(tmp_path: Path, way: tuple[str, int, int, str]) -> None:
    full, state_mb, archive_mb, mode = way
    state, archive = tmp_path / "state", tmp_path / "archive"
    mounts = [
        f"mkdir {state} {archive}",
        f"mount -t tmpfs -o size={state_mb}m none {state}",
        f"mount -t tmpfs -o size={archive_mb}m none {archive}",
    ]
    run = f"exec {sys.executable} - {state} {archive} '{full}' {mode}"
    command = ["unshare", "-m", "sh", "-c", " && ".join([*mounts, run])]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, timeout=380, check=False, cwd=root)
    assert "nothing lost" in result.stdout, result.stderr[-3000:]
