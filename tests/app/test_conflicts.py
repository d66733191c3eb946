"""Contents under one SOP Instance UID that differ in encoding only are no conflict."""

from __future__ import annotations

import pytest
import trio
from pydicom import dcmread

from gateway.app.conflicts import Conflicts
from gateway.codec.workers.pool import Pool
from gateway.core.domain import DeliveryState
from gateway.dicom.syntaxes import IMPLICIT_LITTLE
from gateway.ledger.database.transitions import move
from gateway.ledger.deliveries import overview, proofs
from gateway.ledger.received.conflicts import pairs
from gateway.ledger.received.instances import SAME_CONTENT, SUPERSEDED
from tests.support import instances
from tests.support.waiting import until


@pytest.fixture
def store(tmp_path):
    with instances.store(tmp_path / "state") as opened:
        yield opened


async def judged(store, tmp_path, condition):
    looks = []
    with Pool(1) as pool:
        conflicts = Conflicts(store.ledger, store.spool, pool, tmp_path / "proving", settled=lambda: looks.append(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conflicts.run)
            await until(condition, "compared")
            nursery.cancel_scope.cancel()


def otherwise(path, to, **values):
    """Write an instance in Implicit VR Little Endian, with other values where some are given."""
    dataset = dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.TransferSyntaxUID = IMPLICIT_LITTLE
    dataset.save_as(to, implicit_vr=True, little_endian=True)
    return to


def reasons(store):
    return [row.reason for row in store.rows()]


@pytest.mark.parametrize("compressed", [False, True])
async def test_another_encoding_is_delivered_and_nothing_is_held(store, tmp_path, ct_series, compressed):
    (plain,) = ct_series(1)
    other = ct_series(1, j2k=True)[0] if compressed else otherwise(plain, tmp_path / "other.dcm")
    assert dcmread(plain).SOPInstanceUID == dcmread(other).SOPInstanceUID
    store.add_file(plain, "a", "b")
    store.add_file(other, "a")
    assert reasons(store) == [SUPERSEDED, None, None]
    await judged(store, tmp_path, lambda: reasons(store) == [SAME_CONTENT, None, None])
    assert store.states() == ["dropped", "pending", "pending"]
    with store.ledger.read() as connection:
        assert overview.conflicts(connection) == []
        assert overview.holdings(connection).conflicts == 0
        rows = connection.execute(proofs.unverified_columns()).all()
        assert [row.has_rivals for row in rows] == [False] * 3


async def test_three_encodings_of_one_are_one(store, tmp_path, ct_series):
    (plain,) = ct_series(1)
    for path in (plain, otherwise(plain, tmp_path / "other.dcm"), ct_series(1, j2k=True)[0]):
        store.add_file(path, "a")
    await judged(store, tmp_path, lambda: store.states() == ["dropped", "dropped", "pending"])
    with store.ledger.read() as connection:
        assert not any(row.has_rivals for row in connection.execute(proofs.unverified_columns()))


async def test_the_first_content_in_another_encoding_after_a_different_one(store, tmp_path, ct_series):
    (first,) = ct_series(1)
    different = otherwise(first, tmp_path / "different.dcm", PatientID="other")
    for path in (first, different, otherwise(first, tmp_path / "again.dcm")):
        store.add_file(path, "a")
    await judged(store, tmp_path, lambda: reasons(store) == [SAME_CONTENT, SUPERSEDED, None])
    assert store.states() == ["dropped", "held", "pending"]
    with store.ledger.read() as connection:
        (conflict,) = overview.conflicts(connection)
        assert (conflict.older_id, conflict.newer_id) == (1, 3)
        assert overview.holdings(connection).conflicts == 1


async def test_pages_of_pairs_leave_none_out(store, tmp_path, ct_series):
    (first,) = ct_series(1)
    for number in range(4):
        store.add_file(otherwise(first, tmp_path / f"{number}.dcm", PatientID=str(number)), "a")
    with store.ledger.read() as connection:
        whole = [(pair.older_id, pair.newer_id) for pair in pairs(connection, after=(0, 0), limit=100)]
        paged, after = [], (0, 0)
        while page := pairs(connection, after=after, limit=2):
            paged += [(pair.older_id, pair.newer_id) for pair in page]
            after = paged[-1]
    assert whole == paged == [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]


@pytest.mark.parametrize("values", [{"PatientID": "other"}, {"InstanceNumber": "99"}, {"StudyDescription": None}])
async def test_other_content_stays_a_conflict(store, tmp_path, ct_series, values):
    plain, fine = ct_series(2)
    store.add_file(plain, "a")
    store.add_file(otherwise(plain, tmp_path / "other.dcm", **values), "a")
    store.add_file(fine, "a")
    store.add_file(otherwise(fine, tmp_path / "fine.dcm"), "a")
    await judged(store, tmp_path, lambda: SAME_CONTENT in reasons(store))
    assert store.states() == ["held", "pending", "dropped", "pending"]
    with store.ledger.read() as connection:
        assert overview.holdings(connection).conflicts == 1


async def test_what_a_person_dropped_goes_in_nobodys_place(store, tmp_path, ct_series):
    plain, fine = ct_series(2)
    store.add_file(plain, "a")
    store.add_file(otherwise(plain, tmp_path / "other.dcm"), "a")
    store.add_file(fine, "a")
    store.add_file(otherwise(fine, tmp_path / "fine.dcm"), "a")
    second = store.rows()[1].id
    store.ledger.write(lambda connection: move(connection, [second], DeliveryState.DROPPED, now=1.0))
    await judged(store, tmp_path, lambda: SAME_CONTENT in reasons(store))
    assert store.states() == ["held", "dropped", "dropped", "pending"]
