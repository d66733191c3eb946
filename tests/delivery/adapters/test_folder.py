"""Properties of a destination that is a folder."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from gateway.archives.folder_identity import ASIDE, MARKER
from gateway.archives.places.folder import DeliveredFolder
from gateway.config.settings import FolderDestination
from gateway.core.domain import Consignment, InstanceIdentity, Proof
from gateway.core.errors import DestinationUnavailable
from gateway.delivery.adapters.folder import Folder, relative_path
from gateway.delivery.destination import OutcomeKind
from tests.delivery.outcomes import Outcomes
from tests.support import instances
from tests.support.meta import CT, EXPLICIT, explicit, values


@pytest.fixture
def root(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def session(root, store):
    return Folder("folder", FolderDestination(kind="folder", path=root), store.spool).open()


def consign(store, number=1, data=b"data set", identity=None):
    identity = identity or instances.synthetic(number)
    return Consignment(number, number, "folder", identity, store.keep(identity, data), attempts=0)


def deliver(session, *consignments):
    outcomes = Outcomes()
    session.deliver(consignments, outcomes)
    return outcomes


def files(root):
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != MARKER)


def test_a_file_lies_under_its_study_and_series(session, store, root):
    item = consign(store)
    deliver(session, item)
    of = item.identity
    assert files(root) == [Path(of.study_instance_uid, of.series_instance_uid, f"{of.sop_instance_uid}.dcm")]


def test_files_and_folders_are_for_the_owner_only(session, store, root):
    deliver(session, consign(store))
    for path in [root, *root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("uid", [".", "..", "...", ".1.2", "../../etc", "/etc/passwd", "1/2", "1.2.a", "1.2.A", "1 2", "1" * 80])
def test_an_odd_uid_has_a_place_of_its_own(session, store, root, uid):
    identity = InstanceIdentity("1.2", uid, "1.2.840.10008.1.2.1", uid, uid)
    other = replace(identity, sop_instance_uid=f"{uid}x")
    outcomes = deliver(session, consign(store, 1, identity=identity), consign(store, 2, b"other", other))
    assert [outcome.proof for outcome in outcomes] == [Proof.EXISTS] * 2
    folder = DeliveredFolder("folder", root)
    assert set(folder.studies({})) == {uid}
    assert set(folder.series(uid)) == {uid}
    assert folder.instances(uid, uid) == {uid, f"{uid}x"}
    assert [len(path.parts) for path in files(root)] == [3, 3]


def test_uids_too_long_for_a_name_are_read_from_their_files(session, store, root):
    study, series, uid = ("X" * 90 + end for end in "abc")
    data = b"".join(explicit(tag, b"UI", value) for tag, _, value in values(uid, study=study, series=series) if tag >> 16 < 0x21)
    identity = InstanceIdentity(CT, uid, EXPLICIT, study, series)
    deliver(session, consign(store, 1, data, identity))
    folder = DeliveredFolder("folder", root)
    assert set(folder.studies({})) == set(folder.studies({"StudyInstanceUID": study})) == {study}
    assert set(folder.series(study)) == {series}
    assert folder.instances(study, series) == {uid}
    assert folder.files(study)[series][uid].read_bytes().endswith(data)
    folder.fetch(study, series, uid, root / "copy")
    assert (root / "copy").read_bytes().endswith(data)


@pytest.mark.parametrize("uid", ["", "1\n2", "1.2\0", "1.2.*", "1.2\\3"])
def test_a_name_is_made_of_a_uid_or_not_at_all(uid):
    path = relative_path(InstanceIdentity("1.2", uid, "1.2", uid, uid), "0123456789abcdef99")
    assert path == Path("unknown", "unknown", "unknown-0123456789abcdef.dcm")


def test_any_real_file_arrives_readable_and_unchanged(session, store, root, real_files):
    for number, source in enumerate(real_files[:40], start=1):
        identity, data = instances.part10(source)
        (outcome,) = deliver(session, consign(store, number, data, identity))
        assert outcome.proof is Proof.EXISTS
        target = root / relative_path(identity, "")
        assert target.read_bytes().endswith(data)
        meta = pydicom.filereader.read_file_meta_info(target)
        assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (
            identity.sop_instance_uid,
            identity.transfer_syntax_uid,
        )


def test_the_spooled_files_own_meta_information_is_kept(session, store, root):
    item = consign(store)
    deliver(session, item)
    (name,) = files(root)
    meta = pydicom.filereader.read_file_meta_info(root / name)
    assert meta.SourceApplicationEntityTitle == "PACS"


def test_bytes_without_meta_information_get_one(session, store, root, tmp_path):
    data = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    raw = tmp_path / "bare"
    raw.write_bytes(data)
    item = consign(store, data=data)
    with raw.open("rb") as file:

        class Bare:
            start, offset, length = 0, 0, len(data)

            def fileno(self):
                return file.fileno()

        from gateway.delivery.adapters.file_meta import file_head

        head = file_head(Bare(), item.identity)
    target = tmp_path / "built.dcm"
    target.write_bytes(head + data)
    found = pydicom.dcmread(target)
    assert found.SpecificCharacterSet == "ISO_IR 100"
    assert found.file_meta.MediaStorageSOPInstanceUID == item.identity.sop_instance_uid


def test_the_same_content_again_leaves_the_file_alone(session, store, root):
    deliver(session, consign(store))
    (name,) = files(root)
    before = (root / name).stat()
    (outcome,) = deliver(session, consign(store))
    assert outcome.kind is OutcomeKind.FOUND
    assert (root / name).stat().st_ino == before.st_ino


def test_bytes_that_are_not_what_they_were_are_held_and_never_appear(session, store, root):
    item = consign(store)
    item = replace(item, content=replace(item.content, digest="0" * 32))
    (outcome,) = deliver(session, item)
    assert outcome.kind is OutcomeKind.UNREADABLE
    assert "damaged" in outcome.reason
    assert files(root) == []


def test_a_full_disk_makes_the_folder_unavailable_and_leaves_no_file(session, store, root, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    item = consign(store)
    monkeypatch.setattr("gateway.delivery.adapters.folder.os.fsync", full)
    with pytest.raises(DestinationUnavailable, match="no space left"):
        deliver(session, item)
    assert files(root) == []


def test_what_a_crash_left_aside_is_removed_once_it_is_old(store, root):
    aside = root / ".incoming"
    aside.mkdir(parents=True)
    for name, age in (("old.part", 100_000), ("new.part", 10)):
        (aside / name).write_bytes(b"half")
        stamp = (aside / name).stat().st_mtime - age
        os.utime(aside / name, (stamp, stamp))
    session = Folder("folder", FolderDestination(kind="folder", path=root), store.spool).open()
    deliver(session, consign(store))
    assert not (aside / "old.part").exists()
    assert (aside / "new.part").exists()


def test_what_an_earlier_run_left_aside_is_removed_at_once(store, root):
    destination = Folder("folder", FolderDestination(kind="folder", path=root), store.spool)
    deliver(destination.open(), consign(store))
    mine = root / ASIDE / f"{destination.identity.owner()}-0123-4567.part"
    busy = root / ASIDE / destination.part_name()
    for path in (mine, busy):
        path.write_bytes(b"half")
    Folder("folder", destination.settings, store.spool, memory=destination.memory).tidy()
    assert not mine.exists()
    assert busy.exists(), "this process may be writing it"


def test_what_could_not_be_removed_is_removed_when_idle(store, root, monkeypatch):
    destination = Folder("folder", FolderDestination(kind="folder", path=root), store.spool)
    session = destination.open()
    unlink = os.unlink

    def broken(path, **more):
        if str(path).endswith(".part"):
            raise OSError(5, "Input/output error")
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", broken)
    damaged = consign(store)
    deliver(session, replace(damaged, content=replace(damaged.content, digest="0" * 32)))
    assert len(list((root / ASIDE).iterdir())) == 1
    monkeypatch.setattr(os, "unlink", unlink)
    session.close()
    assert list((root / ASIDE).iterdir()) == []


@pytest.fixture
def synced(monkeypatch):
    """The paths that were made durable, in order."""
    paths = []
    fsync = os.fsync

    def note(descriptor):
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr("gateway.delivery.adapters.folder.os.fsync", note)
    return paths


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells a descriptor's path")
def test_every_name_down_to_a_file_is_durable_before_it_counts_as_stored(session, store, root, synced):
    deliver(session, consign(store, 1))
    (name,) = files(root)
    series = (root / name).parent
    assert {series, series.parent, root, root.parent} <= set(synced)
    synced.clear()
    deliver(session, consign(store, 2))
    assert [path for path in synced if path.is_dir() and path.is_relative_to(root)] == [series]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells a descriptor's path")
def test_a_file_left_by_a_crash_is_synced_before_it_counts_as_found(session, store, root, synced):
    deliver(session, consign(store))
    (name,) = files(root)
    target = root / name
    synced.clear()
    after_restart = Folder("folder", FolderDestination(kind="folder", path=root), store.spool).open()
    (outcome,) = deliver(after_restart, consign(store))
    assert outcome.kind is OutcomeKind.FOUND
    assert {target, target.parent, target.parent.parent, root} <= set(synced)


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_files_and_folders_are_private_whatever_the_umask(session, store, root, umask):
    before = os.umask(umask)
    try:
        deliver(session, consign(store))
    finally:
        os.umask(before)
    (name,) = files(root)
    target = root / name
    assert target.stat().st_mode & 0o077 == 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in (target.parent, target.parent.parent, root)} == {0o700}
