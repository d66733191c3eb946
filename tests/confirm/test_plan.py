"""When a study is asked for, and what answers mean."""

import pytest

from gateway.confirm import plan
from gateway.ledger.deliveries.proofs import Unverified, WaitingStudy

STUDY = WaitingStudy("1.2", first_at=100.0, last_at=110.0, count=5, newest_id=7)


def item(uid, *, study="1.2", series="1.2.3"):
    return Unverified(1, "1.2.840", uid, series, study, 0, None)


@pytest.mark.parametrize(
    ("now", "busy", "due"),
    [
        (112.9, False, False),
        (113.0, False, True),
        (113.0, True, False),
        (189.9, True, False),
        (190.0, True, True),
        # The clock was set back after the study was delivered.
        (109.0, True, True),
    ],
)
def test_a_study_is_due_once_it_is_quiet_or_patience_ends(now, busy, due):
    assert plan.is_due(STUDY, quiet_s=3.0, busy=busy, now=now) is due


def test_patience_is_never_shorter_than_a_minute():
    assert plan.patience_ends_at(STUDY, 0.1) == 160.0
    assert plan.patience_ends_at(STUDY, 10.0) == 400.0


def test_the_next_look_is_when_it_may_be_quiet_or_when_patience_ends():
    assert plan.next_look_at(STUDY, quiet_s=3.0, busy=False) == 113.0
    assert plan.next_look_at(STUDY, quiet_s=3.0, busy=True) == 190.0


def test_comparing_tells_what_is_there_and_what_is_missing():
    diff = plan.compare([item("1"), item("2")], {"2", "3"})
    assert [one.sop_instance_uid for one in diff.present] == ["2"]
    assert [one.sop_instance_uid for one in diff.missing] == ["1"]


def test_each_series_is_asked_for_once():
    assert plan.by_series([item("1"), item("2"), item("3", series="1.2.4")]) == [("1.2", "1.2.3"), ("1.2", "1.2.4")]


def test_what_has_no_study_or_series_cannot_be_asked_for():
    can, cannot = plan.askable([item("1"), item("2", study=""), item("3", series="")])
    assert ([one.sop_instance_uid for one in can], [one.sop_instance_uid for one in cannot]) == (["1"], ["2", "3"])


@pytest.mark.parametrize(
    ("status", "refuses"), [(0x0122, True), (0xA900, True), (0xC000, True), (0xC123, True), (0xA700, False), (0xFE00, False)]
)
def test_a_status_tells_an_unsupported_c_find_from_a_busy_peer(status, refuses):
    assert plan.refuses_find(status) is refuses


@pytest.mark.parametrize(("failures", "wait_s"), [(1, 2), (2, 4), (5, 32), (100, 300)])
def test_an_unreachable_destination_is_asked_less_and_less_often(failures, wait_s):
    assert plan.retry_in_s(failures) == wait_s


def test_a_failed_commitment_says_why():
    assert plan.failure_words(0x0112) == "not committed: 0112 no such object instance"
    assert plan.failure_words(0x9999) == "not committed: 9999 unknown reason"
