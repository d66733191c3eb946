import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
from pydicom import dcmread

from gateway.core.domain import IMPLEMENTATION_CLASS_UID, Content, InstanceIdentity, Provenance
from gateway.core.errors import SpoolFull, SpoolIOError, SpoolMissing, StateFolderInUse
from gateway.spool import Spool, StateLock, layout
from tests.support.meta import IMPLICIT, explicit, implicit
from tests.support.storing import kept, path_of
from tests.support.waiting import PATIENCE_S

IDENTITY = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5", "1.2.840.10008.1.2.1")
PROVENANCE = Provenance("ARCHIVE", "GATEWAY", "10.0.0.7", "a-17", "archive", "GATEWAY", 4711)
DATA = bytes.fromhex("08006000") + b"CS\x02\x00CT"
LARGE = DATA * 10_000
"""More than is kept to be written together with the head."""


def stored(spool: Spool, data: bytes = DATA, *, pieces: int = 1) -> Content:
    writer = spool.create(IDENTITY, PROVENANCE)
    step = max(1, -(-len(data) // pieces))
    writer.write([memoryview(data)[start : start + step] for start in range(0, len(data), step)])
    return writer.commit()


def read(spool: Spool, content: Content) -> bytes:
    with spool.open(content) as source:
        return os.pread(source.fileno(), source.length, source.offset)


def exported(spool: Spool, content: Content) -> bytes:
    """Return the Part 10 file that a record is."""
    with spool.open(content) as source:
        return os.pread(source.fileno(), source.offset + source.length - source.start, source.start)


@pytest.mark.parametrize(("data", "pieces"), [(DATA, 1), (DATA * 1000, 7), (b"odd", 1), (b"x", 1), (os.urandom(5000), 5000)])
def test_what_was_written_is_read_back_untouched(spool: Spool, data: bytes, pieces: int) -> None:
    content = stored(spool, data, pieces=pieces)
    assert read(spool, content) == data
    assert content.length == len(data)
    assert content.digest == xxhash.xxh3_128(data).hexdigest()


def test_a_record_is_part_10_and_says_who_sent_it(spool: Spool) -> None:
    record = exported(spool, stored(spool))
    assert record[128:132] == b"DICM"
    dataset = dcmread(io.BytesIO(record))
    assert dataset.Modality == "CT"
    meta = dataset.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (
        IDENTITY.sop_class_uid,
        IDENTITY.sop_instance_uid,
        IDENTITY.transfer_syntax_uid,
    )
    assert (meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle) == ("ARCHIVE", "ARCHIVE")
    assert meta.ReceivingApplicationEntityTitle == "GATEWAY"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


def test_a_file_tells_recovery_all_that_it_needs(spool: Spool) -> None:
    content = stored(spool)
    entry = spool.describe(content.location)
    assert (entry.identity, entry.provenance, entry.content) == (IDENTITY, PROVENANCE, content)


def test_unknown_originator_and_source_survive_too(spool: Spool) -> None:
    provenance = Provenance("A", "B", "::1", "x")
    writer = spool.create(IDENTITY, provenance)
    writer.write([memoryview(DATA)])
    assert spool.describe(writer.commit().location).provenance == provenance


@pytest.mark.parametrize("fragments", [[], [b""], [b"", b""]])
def test_what_has_no_bytes_is_no_instance(spool: Spool, folder: Path, fragments: list[bytes]) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    if fragments:
        writer.write([memoryview(fragment) for fragment in fragments])
    with pytest.raises(ValueError, match="without bytes"):
        writer.commit()
    assert kept(folder) == []
    assert read(spool, stored(spool)) == DATA


@pytest.mark.parametrize("uid", ["1.2.abc", "1" * 256, "an odd one", "\xe9"])
def test_a_uid_that_breaks_the_rules_survives_too(spool: Spool, uid: str) -> None:
    identity = replace(IDENTITY, sop_instance_uid=uid)
    writer = spool.create(identity, PROVENANCE)
    writer.write([memoryview(DATA)])
    assert spool.describe(writer.commit().location).identity == identity


def test_a_data_set_that_begins_like_file_meta_information_survives(spool: Spool) -> None:
    for begins in (explicit(0x00020010, b"UI", IMPLICIT.encode()), implicit(0x00020003, b"1.2"), b"\x02\0\x03\0UI\xff\xff"):
        content = stored(spool, begins + DATA)
        assert spool.describe(content.location).content == content
        assert read(spool, content) == begins + DATA


def test_files_are_0600_and_folders_0700(spool: Spool, folder: Path) -> None:
    moved = spool.move_out(stored(spool).location)
    assert path_of(folder, moved).stat().st_mode & 0o777 == 0o600
    assert {entry.stat().st_mode & 0o777 for entry in folder.rglob("*") if entry.is_file()} == {0o600}
    assert {entry.stat().st_mode & 0o777 for entry in (folder, *folder.rglob("*")) if entry.is_dir()} == {0o700}


def test_what_was_written_can_be_read_back_before_the_commit(spool: Spool) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(b"abc"), memoryview(b"def")])
    assert (writer.read(1, 4), writer.length) == (b"bcde", 6)
    writer.discard()


def test_a_discarded_instance_leaves_nothing(spool: Spool, folder: Path) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(DATA)])
    writer.discard()
    writer.discard()
    assert kept(folder) == []


def test_discard_after_commit_does_nothing(spool: Spool) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(DATA)])
    content = writer.commit()
    writer.discard()
    assert read(spool, content) == DATA


@pytest.mark.parametrize(("data", "writes"), [(DATA, 1), (LARGE, 2)])
def test_a_commit_syncs_the_segment_once_after_its_last_write(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, data: bytes, writes: int
) -> None:
    calls: list[str] = []
    real_sync, real_write = os.fdatasync, os.pwritev

    def sync(descriptor: int) -> None:
        calls.append("fdatasync " + Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        real_sync(descriptor)

    def write(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        calls.append("pwritev")
        return real_write(descriptor, buffers, offset)

    stored(spool)
    monkeypatch.setattr("gateway.spool.segments.writer.sync_data", sync)
    monkeypatch.setattr(os, "pwritev", write)
    assert read(spool, stored(spool, data)) == data
    assert calls == ["pwritev"] * writes + ["fdatasync .log"]


def test_an_instance_in_several_writes_can_be_read_before_its_commit(spool: Spool) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(DATA)])
    assert writer.read(0, len(DATA)) == DATA
    writer.write([memoryview(DATA), memoryview(LARGE)])
    writer.write([memoryview(DATA)])
    assert read(spool, writer.commit()) == DATA + DATA + LARGE + DATA


def test_a_sync_error_is_final_and_its_segment_is_not_written_again(
    spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stored(spool)
    calls = 0

    def fail(_descriptor: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.EIO, "Input/output error")

    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(DATA)])
    with monkeypatch.context() as patch:
        patch.setattr("gateway.spool.segments.writer.sync_data", fail)
        with pytest.raises(SpoolIOError):
            writer.commit()
    assert calls == 1
    assert kept(folder) == [first.location]
    second = stored(spool)
    assert path_of(folder, second) != path_of(folder, first)
    assert (read(spool, first), read(spool, second)) == (DATA, DATA)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_from_a_broken_one(spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    monkeypatch.setattr(os, "pwritev", failing(number))
    with pytest.raises(SpoolFull):
        writer.write([memoryview(LARGE)])


def test_nothing_is_committed_after_a_write_failed(spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing(errno.EIO))
        with pytest.raises(SpoolIOError):
            writer.write([memoryview(LARGE)])
    with pytest.raises(SpoolIOError):
        writer.commit()
    assert kept(folder) == []


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, SpoolFull), (errno.EIO, SpoolIOError)])
def test_a_small_instance_that_cannot_be_written_is_refused_at_its_commit(
    spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(DATA)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing(number))
        with pytest.raises(error):
            writer.commit()
    assert kept(folder) == []


def failing(number: int) -> Callable[..., int]:
    def fail(*_arguments: object, **_keywords: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_short_writes_are_completed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real_vector, real = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda descriptor, buffers, offset: real_vector(descriptor, [buffers[0][:7]], offset))
    monkeypatch.setattr(os, "pwrite", lambda descriptor, buffer, offset: real(descriptor, buffer[:5], offset))
    assert read(spool, stored(spool, DATA * 20, pieces=9)) == DATA * 20


def test_the_reserve_is_kept_free(folder: Path) -> None:
    with Spool(folder, reserve_bytes=2**62) as spool:
        assert not spool.has_room()
        assert not spool.usage().has_room
        with pytest.raises(SpoolFull):
            spool.create(IDENTITY, PROVENANCE)


def test_a_long_instance_looks_at_the_free_space_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.spool.room.LOOK_EVERY_BYTES", 1000)
    writer = spool.create(IDENTITY, PROVENANCE)
    writer.write([memoryview(bytes(900))])
    spool._room.reserve_bytes = 2**62
    with pytest.raises(SpoolFull):
        writer.write([memoryview(bytes(200))])
    writer.discard()


def test_removing_is_idempotent_and_never_touches_a_file_in_place(spool: Spool, tmp_path: Path) -> None:
    content = stored(spool)
    assert spool.remove(content.location)
    assert not spool.remove(content.location)
    with pytest.raises(SpoolMissing):
        spool.open(content)
    file = tmp_path / "mine.dcm"
    file.write_bytes(DATA)
    status = file.stat()
    assert not spool.remove(layout.file_location(file, size=status.st_size, modified_ns=status.st_mtime_ns))
    assert file.exists()


def test_a_file_in_place_is_opened_only_as_it_was(spool: Spool, tmp_path: Path) -> None:
    file = tmp_path / "ü name\udcff.dcm"
    file.write_bytes(b"xx" + DATA)
    status = file.stat()
    content = Content(layout.file_location(file, size=status.st_size, modified_ns=status.st_mtime_ns), 2, len(DATA), "")
    assert read(spool, content) == DATA
    os.utime(file, ns=(1, 1))
    with pytest.raises(SpoolMissing, match="changed"):
        spool.open(content)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SpoolMissing):
        spool.open(content)
    file.unlink()
    with pytest.raises(SpoolMissing):
        spool.open(content)


@pytest.mark.parametrize("moved", [False, True])
def test_a_truncated_instance_is_not_opened(spool: Spool, folder: Path, moved: bool) -> None:
    content = stored(spool)
    if moved:
        content = spool.move_out(content.location)
    os.truncate(path_of(folder, content), content.offset + 3)
    with pytest.raises(SpoolMissing, match="truncated"):
        spool.open(content)


def test_a_deleted_segment_is_missed_and_not_written_again(spool: Spool, folder: Path) -> None:
    content = stored(spool)
    path_of(folder, content).unlink()
    with pytest.raises(SpoolMissing):
        spool.open(content)
    assert read(spool, stored(spool)) == DATA


@pytest.mark.parametrize("damage", ["truncate", "flip", "head", "empty", "unsealed"])
def test_a_damaged_file_does_not_pass_as_an_instance(spool: Spool, folder: Path, damage: str) -> None:
    content = spool.move_out(stored(spool).location)
    path = path_of(folder, content)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        del data[-1]
    elif damage == "flip":
        data[-1] ^= 1
    elif damage == "head":
        data[130] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        place = data.index(b'{"xxh3":"') + 9
        data[place : place + 32] = b"-" * 32
    path.write_bytes(data)
    with pytest.raises(SpoolMissing):
        spool.describe(content.location)


def test_locations_come_by_segment_and_folder_and_skip_foreign_files(folder: Path) -> None:
    with Spool(folder, reserve_bytes=0) as spool:
        contents = {stored(spool).location for _ in range(20)}
        contents.add(spool.move_out(min(contents)).location)
    for name in ("instances/00/notes.txt", "segments/notes.txt"):
        (folder / name).write_text("x")
    with Spool(folder, reserve_bytes=0) as spool:
        spool.sweep()
        found = list(spool.locations())
    assert {location for _, locations in found for location in locations} == contents
    assert all(location.startswith(prefix) for prefix, locations in found for location in locations)
    assert len(list(folder.rglob("notes.txt"))) == 2


def test_a_folder_among_partial_files_stays_and_stops_nothing(folder: Path) -> None:
    with Spool(folder, reserve_bytes=0):
        pass
    (folder / layout.INCOMING / "somebody's").mkdir()
    (folder / layout.partial_path(layout.new_token())).write_bytes(DATA)
    with Spool(folder, reserve_bytes=0) as spool:
        assert spool.sweep().unfinished == 1
    assert [path.name for path in (folder / layout.INCOMING).iterdir()] == ["somebody's"]


def test_the_sweep_removes_partial_files_and_counts_the_rest(folder: Path) -> None:
    with Spool(folder, reserve_bytes=0) as spool:
        content = stored(spool)
        spool.create(IDENTITY, PROVENANCE).write([memoryview(DATA)])
        before = spool.usage()
    (folder / layout.partial_path(layout.new_token())).write_bytes(DATA)
    with Spool(folder, reserve_bytes=0) as spool:
        assert spool.sweep().unfinished == 1
        assert kept(folder) == [content.location]
        usage = spool.usage()
        assert (usage.instances, usage.stored_bytes) == (1, len(exported(spool, content)))
        assert usage.stored_bytes == before.stored_bytes
        assert usage.segment_bytes == sum(path.stat().st_size for path in (folder / "segments").iterdir())


def test_a_large_instance_is_on_its_way_to_disk_before_its_end(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr("gateway.spool.segments.writer.EARLY_BYTES", 1000)
    monkeypatch.setattr(
        "gateway.spool.segments.writer.begin_writeback", lambda _descriptor, offset, length: begun.append((offset, offset + length))
    )
    writer = spool.create(IDENTITY, PROVENANCE)
    for _ in range(5):
        writer.write([memoryview(bytes(600))])
    content = writer.commit()
    assert begun == [(content.offset, content.offset + 1200), (content.offset + 1200, content.offset + 2400)]


def test_an_instance_larger_than_a_segment_is_kept_or_its_room_freed(spool: Spool, folder: Path) -> None:
    small = stored(spool)
    piece = bytes(1 << 20)
    for keep in (False, True):
        writer = spool.create(IDENTITY, PROVENANCE)
        for number in range(70):
            writer.write([memoryview(bytes([number]) + piece)])
        if not keep:
            writer.discard()
            assert path_of(folder, small).stat().st_size <= 64 << 20
    content = writer.commit()
    assert path_of(folder, content) == path_of(folder, small)
    with spool.open(content) as source:
        assert [source.read(number * (len(piece) + 1), 1)[0] for number in range(70)] == list(range(70))
    assert path_of(folder, stored(spool)) != path_of(folder, small)


def test_a_head_that_a_peer_made_up_is_no_record(folder: Path) -> None:
    """Not even where it comes to lie at the beginning of a block behind the last record, from an instance that was not kept."""
    with Spool(folder, reserve_bytes=0) as other:
        forged = exported(other, stored(other))
    with Spool(folder, reserve_bytes=0) as spool:
        first = stored(spool)
        writer = spool.create(IDENTITY, PROVENANCE)
        head = 8192 - writer._begin
        writer.write([memoryview(bytes(head) + forged.ljust(4096, b"\0") * 3)])
        writer.discard()
        second = stored(spool)
        spool._pool._idle.clear()
    with Spool(folder, reserve_bytes=0) as spool:
        swept = spool.sweep()
        assert swept.corrupt == 0
        assert {first.location, second.location} < {location for _, found in spool.locations() for location in found}
        assert spool.usage().instances == 3


def test_many_threads_write_at_once(spool: Spool) -> None:
    contents: list[Content] = []

    def work(number: int) -> None:
        contents.extend(stored(spool, bytes([number]) * 1000, pieces=3) for _ in range(10))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len({content.location for content in contents}) == 80
    assert spool.usage().instances == 80
    assert {read(spool, content) for content in contents} == {bytes([number]) * 1000 for number in range(8)}


def test_a_second_gateway_on_the_state_folder_is_refused_by_name(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with StateLock(state), pytest.raises(StateFolderInUse, match=str(os.getpid())):
        StateLock(state)
    with StateLock(state):
        assert state.stat().st_mode & 0o777 == 0o700


HOLD_THE_LOCK = """
import sys
from pathlib import Path
from gateway.spool import StateLock
StateLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StateFolderInUse, match=str(process.pid)):
            StateLock(tmp_path)
        process.kill()
        process.wait(PATIENCE_S)
    StateLock(tmp_path).close()


FULL_DISK = """
import io, os, sys
from pathlib import Path
from gateway.core.domain import InstanceIdentity, Provenance
from gateway.core.errors import SpoolFull
from gateway.spool import Spool
folder = Path(sys.argv[1])
spool = Spool(folder, reserve_bytes=0)
held = 0
while held < 100:
    writer = spool.create(InstanceIdentity("1.2", "1.2.3", "1.2.840.10008.1.2"), Provenance("A", "B", "::1", "x"))
    try:
        writer.write([memoryview(bytes(500_000))])
        content = writer.commit()
    except SpoolFull:
        writer.discard()
        break
    held += 1
    last = content.location
assert 0 < held < 100, held
spool.close()
spool = Spool(folder, reserve_bytes=0)
assert spool.sweep().unfinished == 0
assert spool.usage().instances == held
for _, locations in spool.locations():
    for location in locations:
        spool.release(location)
spool.tidy()
writer = spool.create(InstanceIdentity("1.2", "1.2.3", "1.2.840.10008.1.2"), Provenance("A", "B", "::1", "x"))
writer.write([memoryview(bytes(400_000))])
content = writer.commit()
spool.open(content).close()
print("service went on")
"""


def may_unshare() -> bool:
    return sys.platform == "linux" and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="a file system of its own needs the right to mount")
def test_a_really_full_disk_refuses_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=4m none {tmp_path} && exec {sys.executable} - {tmp_path}/spool"
    command = ["unshare", "-m", "sh", "-c", mount]
    result = subprocess.run(command, input=FULL_DISK, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "service went on\n", result.stderr


def test_the_head_never_outgrows_what_recovery_reads(spool: Spool) -> None:
    provenance = Provenance("ä" * 40, "B" * 400, "x" * 4000, "é" * 400, "\u4e00" * 400, "m" * 50, 65535)
    identity = InstanceIdentity("1" * 256, "\xff" * 256, "3" * 256)
    writer = spool.create(identity, provenance)
    writer.write([memoryview(DATA)])
    assert spool.describe(writer.commit().location).identity == identity


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_all_folders_of_the_state_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "state"
    before = os.umask(umask)
    try:
        with StateLock(state), Spool(state / "spool", reserve_bytes=0) as spool:
            content = stored(spool)
            assert read(spool, content) == DATA
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (state, *state.rglob("*")) if path.is_dir()} == {0o700}
    assert path_of(state / "spool", content).stat().st_mode & 0o077 == 0


def test_a_state_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with StateLock(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_file_system_that_does_not_answer_is_an_error_of_the_spool(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_descriptor: int) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with Spool(folder, reserve_bytes=0) as spool:
        monkeypatch.setattr(os, "fstatvfs", stale)
        with pytest.raises(SpoolIOError):
            spool.create(IDENTITY, PROVENANCE)
