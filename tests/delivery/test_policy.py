"""The delivery's table of outcomes, row by row."""

import pytest

from gateway.association.dimse.statuses import store_status
from gateway.config.settings import RetryTable
from gateway.core.domain import Consignment, Content, InstanceIdentity, Proof, Status, StatusClass
from gateway.core.domain import DeliveryState as S
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.delivery.policy import Circumstances, backoff_s, decide, wants_new_session

RETRY = RetryTable(attempts=3, first_s=10, max_s=60)
NOW = 1_000.0


def consignment(**values):
    identity = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "1.2", "1.2.1")
    return Consignment(7, 1, "pacs", identity, Content("spool:x", 0, 1, ""), **({"attempts": 0} | values))


def decided(
    kind=OutcomeKind.ANSWERED,
    status=None,
    *,
    jitter=0.5,
    proof=None,
    found=None,
    instant=None,
    reason="",
    judge=store_status,
    **values,
):
    outcome = Outcome(7, kind, status=status, reason=reason, found=found, proof=proof)
    return decide(outcome, consignment(**values), Circumstances(RETRY, NOW, jitter, instant, judge=judge))


def test_success_is_delivered_and_says_nothing():
    change = decided(status=0x0000, uncertain=True)
    assert (change.state, change.reason, change.attempts, change.uncertain, change.proof) == (S.DELIVERED, None, 1, False, None)


def test_success_is_verified_at_once_where_the_status_is_proof_enough():
    assert decided(status=0x0000, instant=Proof.STATUS).proof is Proof.STATUS


def test_the_adapters_own_proof_is_stronger_than_the_status():
    assert decided(OutcomeKind.FOUND, proof=Proof.EXISTS, instant=Proof.STATUS).proof is Proof.EXISTS


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0107, 0x0116, 0xB123])
def test_a_warning_is_delivered_and_can_be_seen(status):
    change = decided(status=status)
    assert change.state is S.DELIVERED
    assert change.reason.startswith(f"warning {status:04X}")


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF, 0x0213])
def test_a_destination_out_of_resources_is_tried_again_later_then_held(status):
    first = decided(status=status)
    assert (first.state, first.due_at, first.attempts) == (S.DEFERRED, NOW + 5, 1)
    assert decided(status=status, attempts=1).due_at == NOW + 10
    last = decided(status=status, attempts=2)
    assert last.state is S.HELD
    assert "after 3 attempts" in last.reason


@pytest.mark.parametrize("status", [0x0110, 0xC000, 0xCFFF, 0xA900, 0xA9FF, 0x0123])
def test_a_failure_gets_one_more_try_on_a_new_association_then_is_held(status):
    assert decided(status=status).state is S.DEFERRED
    again = consignment(attempts=1, last_status=status)
    assert wants_new_session(again, store_status)
    held = decided(status=status, attempts=1, last_status=status)
    assert held.state is S.HELD
    assert f"{status:04X}" in held.reason


def test_a_failure_after_being_busy_still_gets_its_second_try():
    assert decided(status=0x0110, attempts=1, last_status=0xA700).state is S.DEFERRED


def test_a_retry_by_hand_starts_anew():
    assert decided(status=0x0110, attempts=0, last_status=0x0110).state is S.DEFERRED


@pytest.mark.parametrize("status", [0x0117, 0x0122, 0x0124, 0x0210, 0x0211, 0x0212])
def test_what_another_try_cannot_help_is_held_at_once(status):
    change = decided(status=status)
    assert (change.state, change.status, change.attempts) == (S.HELD, status, 1)
    assert f"{status:04X}" in change.reason


def test_a_duplicate_that_is_there_is_delivered():
    assert decided(status=0x0111, found=True, proof=Proof.EXISTS).state is S.DELIVERED


def test_a_duplicate_that_nobody_can_ask_for_is_delivered_and_says_so():
    change = decided(status=0x0111)
    assert change.state is S.DELIVERED
    assert "could not be asked" in change.reason


def test_a_duplicate_that_is_not_there_is_tried_once_more_then_held():
    assert decided(status=0x0111, found=False).state is S.DEFERRED
    assert decided(status=0x0111, found=False, attempts=1, last_status=0x0111).state is S.HELD


def test_a_duplicate_under_which_other_content_was_sent_is_held():
    assert decided(status=0x0111, found=True, has_rivals=True).state is S.HELD


def test_no_answer_is_uncertain_and_tried_again_then_held_as_uncertain():
    first = decided(OutcomeKind.UNKNOWN)
    assert (first.state, first.uncertain, first.due_at) == (S.DEFERRED, True, NOW + 5)
    last = decided(OutcomeKind.UNKNOWN, attempts=2)
    assert (last.state, last.uncertain) == (S.HELD, True)


def test_what_was_uncertain_stays_so_until_it_is_delivered():
    assert decided(status=0xA700, uncertain=True).uncertain
    assert decided(status=0x0122, uncertain=True).uncertain
    assert not decided(status=0x0000, uncertain=True).uncertain


@pytest.mark.parametrize("kind", [OutcomeKind.REFUSED, OutcomeKind.UNREADABLE])
def test_refused_syntaxes_and_missing_bytes_are_held_with_the_reason(kind):
    change = decided(kind, reason="because")
    assert (change.state, change.reason) == (S.HELD, "because")


@pytest.mark.parametrize(("attempt", "longest"), [(1, 10), (2, 20), (3, 40), (4, 60), (1000, 60)])
def test_backing_off_is_exponential_capped_and_has_full_jitter(attempt, longest):
    assert backoff_s(RETRY, attempt, 1.0) == longest
    assert backoff_s(RETRY, attempt, 0.0) == 0


def test_bytes_that_cannot_be_read_now_are_retried_without_uncertainty():
    change = decided(OutcomeKind.HINDERED)
    assert (change.state, change.uncertain) == (S.DEFERRED, False)
    assert decided(OutcomeKind.HINDERED, attempts=2).state is S.HELD


HTTP = {
    200: StatusClass.DONE,
    202: StatusClass.WARNING,
    409: StatusClass.DUPLICATE,
    503: StatusClass.RETRY,
    500: StatusClass.RETRY_ONCE,
    415: StatusClass.REFUSE,
    504: StatusClass.UNKNOWN,
}


def web(code):
    """Judge as a destination would that is spoken to by HTTP."""
    return Status(code, str(code), "answered by a service", HTTP[code])


@pytest.mark.parametrize(
    ("code", "state", "uncertain"),
    [
        (200, S.DELIVERED, False),
        (202, S.DELIVERED, False),
        (409, S.DELIVERED, False),
        (503, S.DEFERRED, False),
        (500, S.DEFERRED, False),
        (415, S.HELD, False),
        (504, S.DEFERRED, True),
    ],
)
def test_a_status_of_any_kind_is_decided_on_by_its_class(code, state, uncertain):
    change = decided(status=code, judge=web)
    assert (change.state, change.uncertain, change.status) == (state, uncertain, code)
    assert (change.reason is None) == (code == 200)
    assert change.reason is None or f"{code} answered by a service" in change.reason


def test_the_one_more_try_is_told_by_the_destinations_own_statuses():
    tried = consignment(attempts=1, last_status=500)
    assert wants_new_session(tried, web)
    assert decided(status=500, judge=web, attempts=1, last_status=500).state is S.HELD
    assert decided(status=500, judge=web, attempts=1, last_status=503).state is S.DEFERRED


def test_an_answer_without_a_status_is_no_answer():
    change = decided(status=None)
    assert (change.state, change.uncertain) == (S.DEFERRED, True)
