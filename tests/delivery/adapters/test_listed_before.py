"""Instances that a destination listed before the first delivery: it is asked once, and they are no proof afterwards."""

from __future__ import annotations

import threading

import pytest

from gateway.core.domain import Consignment, Proof
from gateway.delivery.adapters import listed_before
from gateway.delivery.adapters.dicom import CStore
from gateway.delivery.adapters.listed_before import Before
from gateway.delivery.destination import OutcomeKind
from tests.delivery.outcomes import Outcomes
from tests.delivery.sites import dicom_settings
from tests.support import instances
from tests.support.archive import Archive
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def consign(store):
    def make(number, *, study=1, data=b"data set", **values):
        identity = instances.synthetic(number, study=study)
        return Consignment(number, number, "pacs", identity, store.keep(identity, data), **({"attempts": 0} | values))

    return make


@pytest.fixture
def destination(store):
    def make(archive, **values):
        return CStore("pacs", dicom_settings(archive.port, **values), "GATEWAY", store.spool)

    return make


def deliver(destination, *consignments):
    session, outcomes = destination.open(), Outcomes()
    try:
        session.deliver(consignments, outcomes)
    finally:
        session.close()
    return outcomes.by_number()


def holding(*items):
    archive = Archive()
    for item in items:
        archive.knows(item.identity)
        archive.held[item.identity.sop_instance_uid] = b"other"
    return archive


def there(outcomes):
    return {number: outcome.was_there for number, outcome in outcomes.items()}


def test_a_study_that_is_not_there_costs_one_question(consign, destination):
    items = [consign(number) for number in range(1, 30)]
    with Archive().running() as archive:
        pacs = destination(archive)
        for item in items:
            archive.knows(item.identity)
        assert set(there(deliver(pacs, *items[:20])).values()) == {False}
        assert set(there(deliver(pacs, *items[20:])).values()) == {False}
        assert archive.finds == 1


def test_what_was_there_is_told_from_what_was_not(consign, destination):
    items = [consign(number) for number in range(1, 5)]
    archive = holding(*items[:2])
    for item in items:
        archive.knows(item.identity)
    with archive.running():
        outcomes = deliver(destination(archive), *items)
        assert there(outcomes) == {1: True, 2: True, 3: False, 4: False}
        assert {outcome.kind for outcome in outcomes.values()} == {OutcomeKind.ANSWERED}
        assert archive.finds == 2


@pytest.mark.parametrize("status", [0xC000, 0x0122, 0xA700])
def test_what_cannot_be_asked_is_not_known(consign, destination, status):
    with Archive(find_status=status).running() as archive:
        pacs = destination(archive)
        assert there(deliver(pacs, consign(1), consign(2))) == {1: None, 2: None}
        finds = archive.finds
        deliver(pacs, consign(3))
        assert archive.finds == finds


def test_without_c_find_nothing_is_asked(consign, destination):
    with Archive().running(find=False) as archive:
        assert there(deliver(destination(archive), consign(1))) == {1: None}
        assert archive.finds == 0


def test_an_archive_that_knows_the_image_level_only_is_asked_there(consign, destination, monkeypatch):
    item = consign(1)
    monkeypatch.setattr("gateway.delivery.adapters.dicom.has_study", _fails)
    archive = holding(item)
    with archive.running():
        assert there(deliver(destination(archive), item)) == {1: True}


def _fails(_association, _study):
    from gateway.core.errors import DimseFailed

    raise DimseFailed("C-FIND", 0xC311, peer="pacs")


@pytest.mark.parametrize("values", [{"attempts": 1}, {"last_status": 0}, {"was_there": False}, {"was_there": True}])
def test_what_was_tried_before_is_not_asked_for_again(consign, destination, values):
    item = consign(1, **values)
    archive = holding(item)
    with archive.running():
        assert there(deliver(destination(archive), item)) == {1: values.get("was_there")}
        assert archive.finds == 0


def test_where_the_answer_is_the_proof_nothing_is_asked(consign, destination):
    item = consign(1)
    archive = holding(item)
    with archive.running():
        assert there(deliver(destination(archive, verify="status"), item)) == {1: None}
        assert archive.finds == 0


@pytest.mark.parametrize(
    ("was_there", "verify", "proof"),
    [
        (None, "exists", Proof.BEFORE),
        (True, "exists", Proof.BEFORE),
        (False, "exists", Proof.EXISTS),
        (True, "commitment", None),
        (True, "digest", None),
    ],
)
def test_a_duplicate_proves_what_is_known_of_it(consign, destination, was_there, verify, proof):
    item = consign(1, was_there=was_there, attempts=1)
    archive = holding(item)
    archive.status = lambda _uid: 0x0111
    with archive.running():
        (outcome,) = deliver(destination(archive, verify=verify), item).values()
    assert (outcome.status, outcome.found, outcome.proof) == (0x0111, True, proof)


def test_one_question_is_asked_for_all_threads():
    asked, go, answers = [], threading.Event(), []
    known = Before()

    def ask():
        asked.append(1)
        assert go.wait(PATIENCE_S)
        return frozenset({"1"})

    threads = [threading.Thread(target=lambda: answers.append(known.answer(("a",), ask))) for _ in range(6)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [frozenset({"1"})] * 6
    assert len(asked) == 1


def test_a_question_that_fails_is_asked_again():
    known = Before()

    def broken():
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            known.answer(("a",), broken)
    assert known.answer(("a",), lambda: None) is None
    assert known.answer(("a",), broken) is None


def test_answers_are_not_kept_for_ever_nor_without_bound(monkeypatch):
    now = 0.0
    known = Before(lambda: now)
    monkeypatch.setattr(listed_before, "MAX_ANSWERS", 10)
    for number in range(100):
        known.answer((str(number),), lambda: frozenset({"x"}))
    assert len(known._answers) == 10
    assert known.answer(("99",), lambda: None) == frozenset({"x"})
    now = listed_before.REMEMBERED_S + 1
    assert known.answer(("99",), lambda: None) is None
    monkeypatch.setattr(listed_before, "MAX_LISTED", 5)
    known.answer(("big",), lambda: frozenset("abcdefgh"))
    assert known._listed <= 5
