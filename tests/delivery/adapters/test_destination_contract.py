"""The contract of every destination adapter: one suite for all of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.association.dimse.statuses import store_status
from gateway.config.settings import RetryTable
from gateway.core.domain import Consignment, Content
from gateway.core.domain import DeliveryState as S
from gateway.core.errors import AssociationError, DestinationUnavailable
from gateway.delivery.destination import DAMAGED, OutcomeKind
from gateway.delivery.policy import Circumstances, decide
from tests.delivery.outcomes import Outcomes
from tests.delivery.sites import dicom_site, folder_site
from tests.support import instances

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.2"]


@pytest.fixture(params=[folder_site, dicom_site], ids=["folder", "dicom"])
def site(request, tmp_path, store):
    with request.param(tmp_path, store.spool) as opened:
        yield opened


@pytest.fixture
def session(site):
    opened = site.destination.open()
    yield opened
    opened.close()


@pytest.fixture
def consign(store):
    """Spool some bytes and make a consignment of them."""

    def make(number, data=b"\x08\x00\x18\x00 some data set ", *, syntax=SYNTAXES[1], study=1):
        identity = instances.synthetic(number, study=study, syntax=syntax)
        return Consignment(number, number, "site", identity, store.keep(identity, data), attempts=0)

    return make


def deliver(session, *consignments):
    outcomes = Outcomes()
    session.deliver(consignments, outcomes)
    return outcomes.by_number()


def state(outcome, consignment):
    return decide(outcome, consignment, Circumstances(RetryTable(), 0.0, 0.5, judge=store_status)).state


def test_every_instance_of_a_batch_is_there_afterwards_byte_for_byte(site, session, consign):
    batch = [consign(number, f"data set {number} ".encode() * 1000) for number in range(1, 6)]
    outcomes = deliver(session, *batch)
    assert [state(outcomes[item.delivery_id], item) for item in batch] == [S.DELIVERED] * 5
    expected = {item.identity.sop_instance_uid: f"data set {item.delivery_id} ".encode() * 1000 for item in batch}
    assert site.contents() == expected


@pytest.mark.parametrize("length", [64, 70_001, 1_000_000])
def test_bytes_in_which_one_bit_has_flipped_never_arrive(site, session, consign, store, length):
    whole, damaged, next_one = consign(1), consign(2, b"\x5a" * length), consign(3)
    with store.spool.open(damaged.content) as source, Path(f"/proc/self/fd/{source.fileno()}").open("r+b") as file:
        file.seek(source.offset + length // 2)
        file.write(b"\x5b")
    outcomes = deliver(session, whole, damaged, next_one)
    assert (outcomes[2].kind, outcomes[2].reason) == (OutcomeKind.UNREADABLE, DAMAGED)
    assert [state(outcomes[item.delivery_id], item) for item in (whole, next_one)] == [S.DELIVERED] * 2
    assert set(site.contents()) == {whole.identity.sop_instance_uid, next_one.identity.sop_instance_uid}


def test_delivering_the_same_again_is_fine(site, session, consign):
    item = consign(1)
    deliver(session, item)
    before = site.contents()
    assert state(deliver(session, item)[1], item) is S.DELIVERED
    assert site.contents() == before


def test_the_same_again_after_an_unknown_outcome_is_fine_too(site, session, consign):
    item = consign(1)
    deliver(session, item)
    again = replace(item, uncertain=True, attempts=1)
    assert state(deliver(session, again)[1], again) is S.DELIVERED
    assert len(site.contents()) == 1


def test_newer_content_takes_the_place_of_older(site, session, consign):
    deliver(session, consign(1, b"older content"))
    deliver(session, replace(consign(1, b"newer content!"), has_rivals=True))
    assert list(site.contents().values()) == [b"newer content!"]


def test_one_batch_may_hold_several_transfer_syntaxes(site, session, consign):
    batch = [consign(number, syntax=syntax) for number, syntax in enumerate(SYNTAXES, start=1)]
    outcomes = deliver(session, *batch)
    assert [state(outcomes[item.delivery_id], item) for item in batch] == [S.DELIVERED] * 4
    assert len(site.contents()) == 4


def test_a_second_batch_may_need_what_the_first_did_not(site, session, consign):
    deliver(session, consign(1, syntax=SYNTAXES[0]))
    deliver(session, consign(2, syntax=SYNTAXES[2]))
    deliver(session, consign(3, syntax=SYNTAXES[0]))
    assert len(site.contents()) == 3


def test_an_instance_without_its_bytes_is_held_and_the_rest_goes_on(site, session, consign, store):
    batch = [consign(1), consign(2), consign(3)]
    store.spool.remove(batch[1].content.location)
    outcomes = deliver(session, *batch)
    assert outcomes[2].kind is OutcomeKind.UNREADABLE
    assert outcomes[2].reason.startswith("bytes missing")
    assert state(outcomes[2], batch[1]) is S.HELD
    assert len(site.contents()) == 2


def test_a_large_data_set_is_delivered(site, session, consign):
    data = bytes(range(256)) * 4096 * 3 + b"ab"
    deliver(session, consign(1, data))
    assert list(site.contents().values()) == [data]


def test_a_destination_that_is_not_there_is_no_instances_fault(site, session, consign):
    site.close()
    reported = Outcomes()
    with pytest.raises((AssociationError, DestinationUnavailable)):
        session.deliver([consign(1), consign(2)], reported)
    assert reported == []


def test_the_same_session_works_again_once_the_destination_is_back(site, session, consign):
    deliver(session, consign(1))
    session.close()
    site.close()
    with pytest.raises((AssociationError, DestinationUnavailable)):
        deliver(session, consign(2))
    site.reopen()
    deliver(session, consign(2))
    assert len(site.contents()) == 2


def test_a_session_told_to_stop_begins_nothing_more(site, session, consign):
    reported = []

    def stop_after_one(outcome):
        reported.append(outcome)
        session.stop()
        return True

    session.deliver([consign(1), consign(2), consign(3)], stop_after_one)
    assert len(reported) == 1
    assert len(site.contents()) == 1


def test_a_session_sends_the_rest_later_where_it_is_not_to_go_on_now(site, session, consign):
    batch = [consign(1), consign(2), consign(3)]
    reported = Outcomes(go_on=lambda: len(reported) < 2)
    session.deliver(batch, reported)
    assert list(reported.by_number()) == [1, 2]
    assert len(site.contents()) == 2
    assert list(deliver(session, *batch[2:])) == [3]
    assert len(site.contents()) == 3


def test_a_closed_session_may_be_used_and_closed_again(site, session, consign):
    session.close()
    deliver(session, consign(1))
    session.close()
    session.close()
    deliver(session, consign(2))
    assert len(site.contents()) == 2


def test_a_location_that_names_nothing_is_held(session, consign):
    item = replace(consign(1), content=Content("spool:none", 0, 10, ""))
    assert state(deliver(session, item)[1], item) is S.HELD
