"""A disk that fails: the peer is told A700, nothing half-stored stays, and the service goes on once the disk does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.crashing import Fault, failing
from tests.support.gateway import Gateway, deliveries, folder_destination
from tests.support.load import Ledger, Template, in_folder, lost
from tests.support.processes import Running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

OUT_OF_RESOURCES = 0xA700

WAYS = [
    Fault("sync of the spool", ("fdatasync",), 1, "EIO", onwards=True),
    Fault("write to the spool: I/O error", ("writev", "pwritev", "pwritev2"), 1, "EIO", onwards=True),
    Fault("write to the spool: no space", ("writev", "pwritev", "pwritev2"), 1, "ENOSPC", onwards=True),
    Fault("write to the spool: quota", ("writev", "pwritev", "pwritev2"), 1, "EDQUOT", onwards=True),
]

WAYS_OF_A_NEW_SEGMENT = [
    Fault("new files: no space", ("openat",), 1, "ENOSPC", onwards=True),
    Fault("room for a segment: no space", ("fallocate",), 1, "ENOSPC", onwards=True),
    Fault("room for a segment: I/O error", ("fallocate",), 1, "EIO", onwards=True),
    Fault("fsync of a segment and its folder", ("fsync",), 1, "EIO", onwards=True),
]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Gateway, Running, Ledger, Path]]:
    archive = folder / "archive"
    gateway = Gateway(folder / "gateway", {"destinations": {"archive": folder_destination(archive)}})
    with gateway.serving() as process:
        yield gateway, process, Ledger(Template(folder / "template")), archive


def delivered(sent: Ledger, archive: Path) -> None:
    wait_until(
        lambda: not lost(in_folder(archive), sent),
        "everything answered 0000 in the archive",
        pause_s=0.1,
    )


@pytest.mark.peers("strace")
@pytest.mark.parametrize("fault", WAYS, ids=lambda fault: fault.name)
def test_a_failing_disk_is_told_the_peer_and_outlived(tmp_path: Path, fault: Fault) -> None:
    with serving(tmp_path) as (gateway, process, sent, archive):
        assert sent.load(gateway.port, associations=1, each=3)
        delivered(sent, archive)
        good = sent.acknowledged
        with failing(process.pid, fault):
            assert sent.load(gateway.port, associations=2, each=3), "the association goes on"
        assert {status for uid, status in sent.answered.items() if uid not in good} == {OUT_OF_RESOURCES}
        assert {row.uid for row in deliveries(gateway)} == good, "nothing is recorded of what was refused"
        assert partial_files(gateway) == []
        assert sent.load(gateway.port, associations=2, each=3)
        assert len(sent.acknowledged) == 3 + 6
        delivered(sent, archive)


@pytest.mark.peers("strace")
@pytest.mark.parametrize("fault", WAYS_OF_A_NEW_SEGMENT, ids=lambda fault: fault.name)
def test_a_segment_that_cannot_be_begun_is_refused_a700_and_begun_later(tmp_path: Path, fault: Fault) -> None:
    with serving(tmp_path) as (gateway, process, sent, archive):
        with failing(process.pid, fault):
            assert sent.load(gateway.port, associations=2, each=3), "the association goes on"
        assert sent.statuses == {OUT_OF_RESOURCES}
        assert deliveries(gateway) == []
        assert list((gateway.state / "spool" / "segments").iterdir()) == []
        assert sent.load(gateway.port, associations=2, each=3)
        assert len(sent.acknowledged) == 6
        delivered(sent, archive)


def partial_files(gateway: Gateway) -> list[Path]:
    return [path for path in (gateway.state / "spool" / "incoming").iterdir() if path.is_file()]


@pytest.mark.peers("strace")
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_sync_that_failed_once_is_not_asked_again(tmp_path: Path, nth: int) -> None:
    """The kernel may report success to the second sync although the pages are gone: only writing anew is safe."""
    with serving(tmp_path) as (gateway, process, sent, archive):
        with failing(process.pid, Fault("once", ("fdatasync",), nth, "EIO")):
            assert sent.load(gateway.port, associations=1, each=3)
        assert sorted(sent.answered.values()) == [0, 0, OUT_OF_RESOURCES]
        delivered(sent, archive)
        assert {row.uid for row in deliveries(gateway)} == sent.acknowledged


def test_less_room_than_the_reserve_is_refused_until_there_is_room(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "gateway", {"spool": {"reserve_bytes": 1 << 60}})
    sent = Ledger(Template(tmp_path / "template"))
    with gateway.serving():
        assert sent.load(gateway.port, associations=1, each=2)
        assert sent.statuses == {OUT_OF_RESOURCES}
    gateway.write(spool={"reserve_bytes": 1 << 24})
    with gateway.serving():
        assert sent.load(gateway.port, associations=1, each=2)
    assert len(sent.acknowledged) == 2
