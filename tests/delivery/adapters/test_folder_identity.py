"""A folder that was delivered into is known again; one that is gone, or another in its place, is a destination that is down."""

import os
import shutil

import pytest

from gateway.archives.folder_identity import ASIDE, MARKER, FolderIdentity, Found, LedgerRemembers, Step, judge
from gateway.archives.places.folder import DeliveredFolder
from gateway.config.settings import FolderDestination
from gateway.core.domain import Consignment, DeliveryState, Proof
from gateway.core.errors import DestinationUnavailable
from gateway.delivery.adapters.folder import Folder, relative_path
from gateway.ledger import Ledger
from gateway.ledger.database.schema import deliveries
from gateway.ledger.database.transitions import move
from gateway.ledger.peers import folders
from gateway.ledger.peers.folders import FolderMemory, KnownFolder
from gateway.ledger.received import instances as instances_of
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.recording import record
from tests.delivery.outcomes import Outcomes
from tests.support import instances


@pytest.fixture
def share(tmp_path):
    share = tmp_path / "mnt" / "share"
    share.mkdir(parents=True)
    return share


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "known.db") as opened:
        yield opened


@pytest.fixture
def folder(store, ledger, share):
    def made(name="files", path=share / "archive", known=ledger):
        table = FolderDestination(kind="folder", path=path)
        return Folder(name, table, store.spool, memory=LedgerRemembers(known, name))

    return made


def deliver(folder, store, number=1):
    identity = instances.synthetic(number)
    item = Consignment(number, number, folder.name, identity, store.keep(identity, b"data %d" % number), attempts=0)
    outcomes = Outcomes()
    folder.open().deliver([item], outcomes)
    (outcome,) = outcomes
    return outcome, folder.settings.path / relative_path(identity, item.content.digest)


def written(path):
    return [file for file in path.rglob("*") if file.is_file() and file.name != MARKER]


def accept(folder, ledger):
    ledger.write(lambda connection: folders.accept(connection, folder.name, str(folder.settings.path), now=1.0))


def gone(folder, store, match):
    with pytest.raises(DestinationUnavailable, match=match) as raised:
        deliver(folder, store, 9)
    assert "gateway accept-folder files" in str(raised.value)


def test_a_folder_that_never_was_is_made_and_marked(folder, store, share):
    outcome, target = deliver(folder(), store)
    assert outcome.proof is Proof.EXISTS
    assert target.exists()
    assert (share / "archive" / MARKER).stat().st_mode & 0o777 == 0o600


def test_a_share_that_is_gone_is_not_made_anew(folder, store, share):
    deliver(folder(), store)
    share.rename(share.with_name("away"))
    share.mkdir()
    gone(folder(), store, "was there and is gone")
    assert list(share.iterdir()) == []


def test_an_empty_mount_point_is_not_delivered_into(folder, store, share):
    deliver(folder(path=share), store)
    share.rename(share.with_name("away"))
    share.mkdir()
    gone(folder(path=share), store, "without the marker file")
    assert list(share.iterdir()) == []


def test_a_share_that_is_mounted_later_is_delivered_into(folder, store, share):
    deliver(folder(), store)
    away = share.rename(share.with_name("away"))
    share.mkdir()
    gone(folder(), store, "gone")
    share.rmdir()
    away.rename(share)
    _, target = deliver(folder(), store, 2)
    assert target.exists()


def test_another_disk_in_its_place_is_not_delivered_into(folder, store, ledger, share, tmp_path):
    deliver(folder(), store)
    shutil.rmtree(share / "archive")
    with Ledger(tmp_path / "other.db") as other:
        deliver(folder(known=other), store)
    gone(folder(), store, "another marker")


def test_a_folder_without_its_marker_is_refused_until_accepted(folder, store, ledger, share):
    deliver(folder(), store)
    (share / "archive" / MARKER).unlink()
    gone(folder(), store, "its marker file .dicom-gateway is gone")
    accept(folder(), ledger)
    _, target = deliver(folder(), store, 2)
    assert target.exists()
    assert (share / "archive" / MARKER).exists()
    deliver(folder(), store, 3)


@pytest.mark.parametrize("text", [b"", b"id 12\n", b"\0" * 5000, b"id " + b"g" * 32, b"ID " + b"a" * 32])
def test_a_marker_that_says_nothing_is_none(folder, store, share, text):
    deliver(folder(), store)
    (share / "archive" / MARKER).write_bytes(text)
    gone(folder(), store, "marker file")


def test_a_marker_that_is_no_file_is_none(folder, store, share):
    deliver(folder(), store)
    marker = share / "archive" / MARKER
    marker.unlink()
    os.mkfifo(marker)
    gone(folder(), store, "marker file")
    marker.unlink()
    marker.mkdir()
    gone(folder(), store, "marker file")
    marker.rmdir()
    marker.symlink_to("/etc/hostname")
    gone(folder(), store, "marker file")


def test_accepting_a_folder_that_is_gone_has_it_made(folder, store, ledger, share):
    deliver(folder(), store)
    shutil.rmtree(share / "archive")
    gone(folder(), store, "gone")
    accept(folder(), ledger)
    _, target = deliver(folder(), store, 2)
    assert target.exists()


def test_a_link_to_the_same_folder_is_the_same_folder(folder, store, share):
    deliver(folder(), store)
    (share / "archive").rename(share / "elsewhere")
    (share / "archive").symlink_to("elsewhere")
    _, target = deliver(folder(), store, 2)
    assert target.exists()


def test_a_link_to_another_folder_is_another_folder(folder, store, share):
    deliver(folder(), store)
    (share / "archive").rename(share / "elsewhere")
    (share / "local").mkdir()
    (share / "archive").symlink_to("local")
    gone(folder(), store, "another folder")
    assert list((share / "local").iterdir()) == []


def test_a_link_to_nothing_is_no_folder(folder, store, share):
    (share / "archive").symlink_to("nowhere")
    with pytest.raises(DestinationUnavailable, match="not a folder"):
        deliver(folder(), store)
    assert not (share / "nowhere").exists()


def test_a_file_in_its_place_is_no_folder(folder, store, share):
    deliver(folder(), store)
    shutil.rmtree(share / "archive")
    (share / "archive").write_bytes(b"")
    with pytest.raises(DestinationUnavailable, match="not a folder"):
        deliver(folder(), store, 2)


def test_two_destinations_may_have_one_folder(folder, store, share):
    deliver(folder("one"), store, 1)
    deliver(folder("two"), store, 2)
    deliver(folder("one"), store, 3)
    assert len(written(share)) == 3
    assert len(list((share / "archive").glob(f"{MARKER}*"))) == 1


def test_a_destination_that_was_renamed_knows_its_folder(folder, store, share):
    deliver(folder("before"), store)
    shutil.rmtree(share / "archive")
    gone(folder(), store, "gone")


def test_a_new_path_is_a_new_folder(folder, store, share):
    deliver(folder(), store)
    _, target = deliver(folder(path=share / "second"), store, 2)
    assert target.exists()
    shutil.rmtree(share / "second")
    gone(folder(path=share / "second"), store, "gone")
    deliver(folder(), store, 3)


def test_a_lost_state_folder_takes_the_marker_that_is_there(folder, store, share, tmp_path):
    deliver(folder(), store)
    marker = (share / "archive" / MARKER).read_bytes()
    with Ledger(tmp_path / "fresh.db") as fresh:
        deliver(folder(known=fresh), store, 2)
        assert (share / "archive" / MARKER).read_bytes() == marker
        shutil.rmtree(share / "archive")
        gone(folder(known=fresh), store, "gone")


def delivered_before(store, ledger):
    arrival = Arrival(instances.synthetic(1), instances.PROVENANCE, store.keep(instances.synthetic(1), b"before"), ("files",), 1.0)

    def fill(connection):
        instance = record(connection, arrival).instance_id
        (delivery,) = instances_of.delivery_ids(connection, deliveries.c.instance_id == instance)
        move(connection, [delivery], DeliveryState.SENDING, now=1.0)
        move(connection, [delivery], DeliveryState.VERIFIED, now=1.0)

    ledger.write(fill)


def test_an_older_gateways_folder_is_marked_where_it_is(folder, store, ledger, share):
    delivered_before(store, ledger)
    (share / "archive" / ASIDE).mkdir(parents=True)
    deliver(folder(), store)
    assert (share / "archive" / MARKER).exists()


@pytest.mark.parametrize("empty", [False, True])
def test_an_older_gateways_folder_that_is_gone_is_not_made(folder, store, ledger, share, empty):
    delivered_before(store, ledger)
    if empty:
        (share / "archive").mkdir()
    gone(folder(), store, "is its share mounted")
    assert written(share) == []
    accept(folder(), ledger)
    deliver(folder(), store)


def test_a_folder_that_is_read_only_is_down_and_comes_back(folder, store, share, monkeypatch):
    deliver(folder(), store)
    rename = os.rename

    def read_only(*_arguments, **_more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", read_only)
    with pytest.raises(DestinationUnavailable, match="read-only"):
        deliver(folder(), store, 2)
    monkeypatch.setattr(os, "rename", rename)
    deliver(folder(), store, 2)


def test_a_folder_that_is_replaced_meanwhile_proves_nothing(folder, store, share, monkeypatch):
    deliver(folder(), store)
    rename = os.rename

    def swapped(*arguments, **more):
        rename(*arguments, **more)
        rename(share / "archive", share / "away")
        (share / "archive").mkdir()

    monkeypatch.setattr(os, "rename", swapped)
    with pytest.raises(DestinationUnavailable, match="replaced"):
        deliver(folder(), store, 2)
    assert list((share / "archive").iterdir()) == []


def test_a_copy_with_its_marker_is_the_same_folder(folder, store, share):
    deliver(folder(), store)
    shutil.copytree(share / "archive", share / "copy")
    shutil.rmtree(share / "archive")
    (share / "copy").rename(share / "archive")
    _, target = deliver(folder(), store, 2)
    assert target.exists()


def test_nothing_is_known_to_be_in_a_folder_that_is_gone(folder, store, ledger, share):
    deliver(folder(), store)
    of = instances.synthetic(1)
    place = DeliveredFolder(
        "files", share / "archive", FolderIdentity("files", share / "archive", LedgerRemembers(ledger, "files"))
    )
    assert place.instances(of.study_instance_uid, of.series_instance_uid) == {of.sop_instance_uid}
    share.rename(share.with_name("away"))
    for question in (
        lambda: place.instances(of.study_instance_uid, of.series_instance_uid),
        lambda: place.series(of.study_instance_uid),
        lambda: place.studies({}),
        lambda: place.files(of.study_instance_uid),
    ):
        with pytest.raises(DestinationUnavailable, match="is gone"):
            question()


def test_a_ledger_that_cannot_remember_has_nothing_delivered(folder, store, ledger, share):
    closed = folder()
    ledger.close()
    with pytest.raises(DestinationUnavailable, match="cannot be remembered"):
        deliver(closed, store)


KNOWN = KnownFolder("a" * 32, 1, 2)


@pytest.mark.parametrize(
    ("memory", "found", "step"),
    [
        (FolderMemory(), None, Step.MAKE),
        (FolderMemory(accepted=True), None, Step.MAKE),
        (FolderMemory(), Found(1, 2), Step.MARK),
        (FolderMemory(), Found(1, 2, "b" * 32), Step.USE),
        (FolderMemory(delivered=True), Found(1, 2, used=True), Step.MARK),
        (FolderMemory(delivered=True), Found(1, 2, "b" * 32), Step.USE),
        (FolderMemory(KNOWN), Found(1, 2, "a" * 32), Step.USE),
        (FolderMemory(KNOWN), Found(3, 4, "a" * 32), Step.USE),
    ],
)
def test_what_is_done_depends_on_what_is_known_and_found(memory, found, step):
    assert judge(memory, found) is step


@pytest.mark.parametrize(
    ("memory", "found"),
    [
        (FolderMemory(KNOWN), None),
        (FolderMemory(KNOWN), Found(1, 2)),
        (FolderMemory(KNOWN), Found(1, 3, used=True)),
        (FolderMemory(KNOWN), Found(1, 2, "b" * 32)),
        (FolderMemory(delivered=True), None),
        (FolderMemory(delivered=True), Found(1, 2)),
    ],
)
def test_another_folder_or_none_is_never_used(memory, found):
    assert isinstance(judge(memory, found), str)
