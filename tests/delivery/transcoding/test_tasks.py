"""Instances reach destinations that do not take them as they are, or are to get them in another transfer syntax."""

from __future__ import annotations

import os
import threading

import pytest

from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.core.domain import Content, Mode
from gateway.core.errors import CodecFailed, PixelsDiffer, SpoolMissing
from gateway.delivery.transcoding import copies, transcoder
from gateway.dicom import syntaxes
from gateway.ledger.peers import learned
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.recording import record
from tests.support import data, instances
from tests.support.archive import Archive
from tests.support.ports import HOST
from tests.support.scripted_scp import ScriptedScp
from tests.support.transcoders import acceptance, working
from tests.support.transcoding import DataSet, of_file
from tests.support.waiting import PATIENCE_S, until

EXPLICIT, IMPLICIT, J2K = syntaxes.EXPLICIT_LITTLE, syntaxes.IMPLICIT_LITTLE, syntaxes.J2K_LOSSLESS
FAST = {"attempts": 3, "first_s": 0.02, "max_s": 0.05}


def settings(**named):
    """Make settings of destinations given as name to (port, values) or as name to a folder's table."""
    tables = {}
    for name, given in named.items():
        if isinstance(given, dict):
            tables[name] = {"kind": "folder"} | given
        else:
            port, values = given
            tables[name] = {
                "kind": "dicom",
                "ae_title": "ARCHIVE",
                "host": HOST,
                "port": port,
                "verify": "status",
                "retry": FAST,
            } | values
    return Settings.model_validate({"destinations": tables})


def settled(store, to=None):
    return lambda: set(store.states(to=to)) <= {"verified", "held"}


def pixels(data_set, syntax):
    return DataSet(data_set, syntax).pixels()


@pytest.fixture
def pool():
    """Two workers; they start when there is work."""
    with Pool(2) as workers:
        yield workers


class Counting(Pool):
    """A pool that counts the frames it is given, and begins none before it may."""

    def __init__(self) -> None:
        super().__init__(2)
        self.frames = 0
        self.may = threading.Event()
        self.may.set()

    def submit(self, order, fd, ranges, deliver):
        self.frames += 1
        assert self.may.wait(PATIENCE_S)
        return super().submit(order, fd, ranges, deliver)


async def test_what_is_refused_as_it_is_arrives_in_what_is_accepted(store, pool, ct_series):
    sources = {store.add_file(path, "pacs"): path for path in ct_series(3)}
    with Archive().running(syntaxes=[J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "everything settled")
    assert store.states() == ["verified"] * 3
    assert {row.sent_as for row in store.rows()} == {J2K}
    for uid, path in sources.items():
        assert (pixels(archive.held[uid], J2K) == of_file(path).pixels()).all()


async def test_compressed_instances_are_decompressed_for_an_implicit_only_peer(store, pool, ct_series):
    sources = {store.add_file(path, "pacs"): path for path in ct_series(2, j2k=True)}
    with Archive().running(syntaxes=[IMPLICIT]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "everything settled")
    assert {row.sent_as for row in store.rows()} == {IMPLICIT}
    for uid, path in sources.items():
        assert (pixels(archive.held[uid], IMPLICIT) == of_file(path).pixels()).all()


@pytest.mark.parametrize("mode", ["j2k-lossless", "explicit-le"])
async def test_a_destination_gets_what_it_asks_for_and_the_rest_as_it_is(store, pool, ct_series, mode):
    plain, compressed = ct_series(1)[0], ct_series(1, seed=2, j2k=True)[0]
    no_image = data.real_file("test-SR.dcm")
    uids = [store.add_file(path, "pacs") for path in (plain, compressed, no_image)]
    with Archive().running(syntaxes=[EXPLICIT, IMPLICIT, J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {"transfer_syntax": mode})), pool):
            await until(settled(store), "everything settled")
    assert store.states() == ["verified"] * 3
    sent_as = [store.row(uid).sent_as for uid in uids]
    assert sent_as[:2] == ([J2K, None] if mode == "j2k-lossless" else [None, EXPLICIT])
    assert archive.held[uids[2]] == of_file(no_image).data


async def test_what_a_codec_cannot_hold_goes_as_it_is_where_that_is_accepted(store, pool):
    path = data.real_file("liver_1frame.dcm")
    uid = store.add_file(path, "pacs")
    with Archive().running(syntaxes=[EXPLICIT, IMPLICIT, J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {"transfer_syntax": "j2k-lossless"})), pool):
            await until(settled(store), "settled")
    row = store.row(uid)
    assert (row.state, row.sent_as) == ("verified", of_file(path).syntax)
    assert archive.held[uid] == of_file(path).data


@pytest.mark.parametrize(("allowed", "state"), [(False, "held"), (True, "verified")])
async def test_what_lost_something_is_only_decompressed_where_that_is_allowed(store, pool, allowed, state):
    uid = store.add_file(data.real_file("SC_rgb_small_odd_jpeg.dcm"), "pacs")
    with Archive().running(syntaxes=[EXPLICIT]) as archive:
        values = {"allow_decompressed_lossy": allowed}
        async with working(store, settings(pacs=(archive.port, values)), pool):
            await until(settled(store), "settled")
    row = store.row(uid)
    assert row.state == state
    assert allowed or "allow_decompressed_lossy" in row.reason


async def test_a_broken_codestream_costs_one_instance(store, pool, ct_series):
    good = [store.add_file(path, "pacs") for path in ct_series(2, j2k=True)]
    identity, whole = instances.part10(ct_series(1, seed=3, j2k=True)[0])
    begin = whole.index(b"\xff\x4f\xff\x51")
    store.add(identity, whole[: begin + 200] + bytes(len(whole) - begin - 208) + whole[-8:], "pacs")
    with Archive().running(syntaxes=[EXPLICIT]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "everything settled")
    assert sorted(archive.held) == sorted(good)
    row = store.row(identity.sop_instance_uid)
    assert row.state == "held"
    assert row.reason
    assert row.attempts == 0


async def test_several_destinations_share_one_copy(store, ct_series):
    store.add_file(ct_series(1)[0], "a", "b", "c")
    with Counting() as pool, Archive().running(syntaxes=[J2K]) as first, Archive().running(syntaxes=[J2K]) as second:
        named = {"a": (first.port, {}), "b": (second.port, {}), "c": (second.port, {"transfer_syntax": "j2k-lossless"})}
        async with working(store, settings(**named), pool):
            await until(settled(store), "everything settled")
        assert pool.frames == 1
    assert store.states() == ["verified"] * 3


async def test_what_needs_no_transcoding_does_not_wait_for_what_does(store, ct_series):
    slow = [store.add_file(path, "pacs") for path in ct_series(5)]
    fast = [store.add_file(path, "pacs") for path in ct_series(5, seed=2, j2k=True)]
    with Counting() as pool, Archive().running(syntaxes=[J2K]) as archive:
        pool.may.clear()
        async with working(store, settings(pacs=(archive.port, {"associations": 1})), pool):
            await until(lambda: {store.row(uid).state for uid in fast} == {"verified"}, "what needs nothing is there")
            waiting = [store.row(uid) for uid in slow]
            assert {(row.state, row.attempts) for row in waiting} == {("deferred", 0)}
            assert {row.reason for row in waiting} == {"waits to be transcoded into JPEG 2000 Lossless"}
            pool.may.set()
            await until(settled(store), "everything settled")
    assert store.states() == ["verified"] * 10


async def test_no_more_is_transcoded_ahead_than_a_destination_takes(store, pool, ct_series, monkeypatch):
    monkeypatch.setattr(transcoder, "AHEAD_BYTES", 1)
    for path in ct_series(6):
        store.add_file(path, "pacs", "dead")
    with Archive().running(syntaxes=[J2K]) as archive, Archive(status=lambda _uid: 0xA700).running(syntaxes=[J2K]) as full:
        retry = {"retry": {"attempts": 1000, "first_s": 0.05, "max_s": 0.1}}
        named = {"pacs": (archive.port, {}), "dead": (full.port, retry)}
        async with working(store, settings(**named), pool) as at_work:
            await until(settled(store, to="pacs"), "the good one is done")
            made = [row for row in store.rows(to="dead") if row.sent_as and not row.awaits_transcoding]
            assert len(made) == 1
            await until(lambda: len(list(at_work.copies.folder.iterdir())) <= 6, "copies are not more than instances")
    assert store.states(to="pacs") == ["verified"] * 6


async def test_instances_awaiting_transcoding_are_transcoded_after_a_restart(store, ct_series):
    uids = [store.add_file(path, "pacs") for path in ct_series(3)]
    with Archive().running(syntaxes=[J2K]) as archive:
        with Counting() as pool:
            pool.may.clear()
            async with working(store, settings(pacs=(archive.port, {})), pool) as at_work:
                await until(lambda: all(row.awaits_transcoding for row in store.rows()), "everything waits")
                left = at_work.copies.folder / "left"
                left.write_bytes(b"from a crash")
                pool.may.set()
                pool.close()
        with Pool(2) as pool:
            async with working(store, settings(pacs=(archive.port, {})), pool):
                await until(settled(store), "everything settled")
        assert not left.exists()
    assert sorted(archive.held) == sorted(uids)


async def test_a_copy_that_is_gone_or_damaged_is_made_anew(store, pool, ct_series):
    uids = [store.add_file(path, "pacs") for path in ct_series(2)]
    refusing = threading.Event()
    archive = Archive(status=lambda _uid: 0x0000 if refusing.is_set() else 0xA700)
    with archive.running(syntaxes=[J2K]):
        values = {"retry": {"attempts": 1000, "first_s": 0.05, "max_s": 0.1}}
        async with working(store, settings(pacs=(archive.port, values)), pool) as at_work:
            await until(lambda: all(row.status == 0xA700 for row in store.rows()), "copies are there and were sent")
            gone, damaged = sorted(at_work.copies.folder.iterdir())
            gone.unlink()
            with damaged.open("r+b") as file:
                file.seek(-20, os.SEEK_END)
                file.write(b"\x55" * 8)
            refusing.set()
            await until(settled(store), "everything settled")
    assert store.states() == ["verified"] * 2
    for uid, path in zip(uids, ct_series(2), strict=True):
        assert (pixels(archive.held[uid], J2K) == of_file(path).pixels()).all()


async def test_a_route_decides_before_the_destination(store, pool, ct_series):
    identity, raw = instances.part10(ct_series(1)[0])
    content = store.keep(identity, raw)
    arrival = Arrival(identity, instances.PROVENANCE, content, ("pacs",), at=0.0, modes={"pacs": Mode.J2K_LOSSLESS})
    store.ledger.write(lambda connection: record(connection, arrival))
    with Archive().running(syntaxes=[EXPLICIT, J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "settled")
    assert store.rows()[0].sent_as == J2K


async def test_a_folder_gets_what_it_asks_for(store, pool, ct_series, tmp_path):
    uid = store.add_file(ct_series(1, j2k=True)[0], "files")
    async with working(store, settings(files={"path": tmp_path / "out", "transfer_syntax": "explicit-le"}), pool):
        await until(settled(store), "settled")
    (written,) = (tmp_path / "out").rglob("*.dcm")
    assert written.stem == uid
    assert of_file(written).syntax == EXPLICIT
    assert (of_file(written).pixels() == of_file(ct_series(1, j2k=True)[0]).pixels()).all()


async def test_a_refused_context_is_remembered_across_restarts_until_a_retry(store, ct_series):
    store.add_file(data.real_file("SC_rgb_small_odd_jpeg.dcm"), "pacs")
    archive = Archive()
    with archive.running(syntaxes=[EXPLICIT]):
        for _ in range(2):
            with Pool(1) as pool:
                async with working(store, settings(pacs=(archive.port, {})), pool) as at_work:
                    await until(settled(store), "held")
                    pair = (pair_of(store)[0], syntaxes.JPEG_BASELINE)
                    assert at_work.forms["pacs"].acceptance.accepts(pair) is False
        assert acceptance(store, "pacs").accepts(pair) is False
        with Pool(1) as pool:
            async with working(store, settings(pacs=(archive.port, {})), pool) as at_work:
                at_work.dispatcher.retry("pacs")
                assert at_work.forms["pacs"].acceptance.accepts(pair) is None
    with store.ledger.read() as connection:
        assert learned.get(connection, "destination:pacs", learned.REFUSED_CONTEXTS, now=0.0) == "[]"


def pair_of(store):
    (row,) = store.rows()
    with store.ledger.read() as connection:
        found = connection.exec_driver_sql(
            "SELECT sop_class_uid, transfer_syntax_uid FROM instances WHERE sop_instance_uid = ?", (row.sop_instance_uid,)
        )
        return tuple(found.one())


async def test_without_room_nothing_is_transcoded_and_nothing_is_lost(store, pool, ct_series, monkeypatch):
    monkeypatch.setattr(transcoder, "PAUSE_S", 0.05)
    store.add_file(ct_series(1)[0], "pacs")
    room = threading.Event()
    with Archive().running(syntaxes=[J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool, has_room=room.is_set):
            await until(lambda: store.rows()[0].awaits_transcoding, "it waits")
            assert store.states() == ["deferred"]
            room.set()
            await until(settled(store), "settled")
    assert store.states() == ["verified"]


class Failing(Pool):
    """A pool that fails in a way that nobody foresaw, over the first frame."""

    def __init__(self, error: Exception) -> None:
        super().__init__(2)
        self.errors = [error]

    def submit(self, order, fd, ranges, deliver):
        if self.errors:
            raise self.errors.pop()
        return super().submit(order, fd, ranges, deliver)


async def test_a_fault_that_nobody_foresaw_costs_one_instance(store, ct_series):
    for path in ct_series(3):
        store.add_file(path, "pacs")
    with Failing(ValueError("an unexpected value")) as pool, Archive().running(syntaxes=[J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "everything settled")
    assert sorted(store.states()) == ["held", "verified", "verified"]
    (held,) = [row for row in store.rows() if row.state == "held"]
    assert held.reason == "it cannot be transcoded into JPEG 2000 Lossless: internal error ValueError"


async def test_what_the_disk_did_not_take_this_time_is_transcoded_later(store, ct_series, monkeypatch):
    monkeypatch.setattr(transcoder, "AGAIN_S", 0.05)
    monkeypatch.setattr(transcoder, "PAUSE_S", 0.05)
    store.add_file(ct_series(1)[0], "pacs")
    with Failing(OSError(28, "No space left on device")) as pool, Archive().running(syntaxes=[J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, {})), pool):
            await until(settled(store), "everything settled")
    assert store.states() == ["verified"]


async def test_a_failed_proof_holds_an_instance_that_would_be_taken_as_it_is(store, ct_series):
    uid = store.add_file(ct_series(1)[0], "pacs")
    values = {"transfer_syntax": "j2k-lossless"}
    with Failing(PixelsDiffer("frame 1")) as pool, Archive().running(syntaxes=[EXPLICIT, J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, values)), pool):
            await until(settled(store), "settled")
    row = store.row(uid)
    assert row.state == "held"
    assert row.reason.startswith("the proof failed")
    assert not archive.held


async def test_what_the_codec_fails_at_goes_as_it_is_where_that_is_accepted(store, ct_series):
    uid = store.add_file(ct_series(1, j2k=True)[0], "pacs")
    values = {"transfer_syntax": "explicit-le"}
    with Failing(CodecFailed("it crashed")) as pool, Archive().running(syntaxes=[EXPLICIT, J2K]) as archive:
        async with working(store, settings(pacs=(archive.port, values)), pool):
            await until(settled(store), "settled")
    row = store.row(uid)
    assert (row.state, row.sent_as) == ("verified", J2K)
    assert archive.held[uid] == of_file(ct_series(1, j2k=True)[0]).data


def test_what_an_earlier_run_left_goes_and_a_folder_of_somebody_stays(store, tmp_path):
    folder = tmp_path / "copies"
    (folder / "somebody").mkdir(parents=True)
    (folder / "left").write_bytes(b"copy")
    (folder / "link").symlink_to(tmp_path)
    copies.Copies(folder, store.spool).begin()
    assert [path.name for path in folder.iterdir()] == ["somebody"]
    assert tmp_path.is_dir()


def test_copies_that_nobody_waits_for_go_when_they_are_many(store, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "IDLE_BYTES", 5)
    kept = copies.Copies(tmp_path / "copies", store.spool)
    kept.begin()
    sources = [Content(f"spool:{number}", 0, 4, str(number)) for number in range(3)]
    made = [kept.make(source, EXPLICIT, J2K, lambda descriptor: os.write(descriptor, b"copy")) for source in sources]
    assert kept.find(sources[0], EXPLICIT, J2K) == made[0]
    kept.keep_only(lambda key: key[0] == "2")
    assert [kept.find(source, EXPLICIT, J2K) is not None for source in sources] == [True, False, True]
    assert len(list((tmp_path / "copies").iterdir())) == 2
    with pytest.raises(SpoolMissing), kept.open(made[1]):
        pass
    with kept.open(made[2]) as opened:
        assert os.pread(opened.fileno(), 10, opened.offset) == b"copy"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "copies").iterdir()} == {0o600}


async def test_nothing_is_left_of_copies_once_all_is_delivered(store, pool, ct_series):
    for path in ct_series(4):
        store.add_file(path, "pacs", "other")
    copies_in = store.folder / "transcoded"
    with Archive().running(syntaxes=[J2K]) as one, Archive().running(syntaxes=[J2K]) as other:
        async with working(store, settings(pacs=(one.port, {}), other=(other.port, {"associations": 1})), pool):
            await until(settled(store), "everything settled")
            await until(lambda: list(copies_in.iterdir()) == [], "no copy is left")
    assert store.states() == ["verified"] * 8


async def test_no_association_is_made_only_to_find_out_what_is_known(store, pool, ct_series):
    def negotiate(abstract, offered):
        return J2K if J2K in offered and abstract != "1.2.840.10008.5.1.4.1.2.2.1" else None

    with ScriptedScp(negotiate=negotiate).running() as scp:
        values = {"idle_close_s": 0.01, "associations": 1}
        async with working(store, settings(pacs=(scp.port, values)), pool) as at_work:
            for number, path in enumerate(ct_series(3), start=1):
                store.add_file(path, "pacs")
                at_work.dispatcher.nudge("pacs")
                await until(lambda wanted=number: store.states() == ["verified"] * wanted, "settled")
    assert len(scp.stores) == 3
    assert scp.associations <= 4
