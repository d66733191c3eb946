"""The circuit of a destination: closed, open until a time, half-open."""

import pytest

from gateway.config.settings import RetryTable
from gateway.delivery.lanes.circuit import CLOSED, CircuitState, after_failure, after_success, probe_now, state_of, view

RETRY = RetryTable(first_s=5, max_s=900)


def failed(times, *, jitter=1.0, retry=RETRY):
    circuit = CLOSED
    for _ in range(times):
        circuit = after_failure(circuit, now=100.0, retry=retry, jitter=jitter, reason="connection refused")
    return circuit


def test_it_is_closed_until_something_fails():
    assert state_of(CLOSED, 0.0) is CircuitState.CLOSED


def test_a_failure_opens_it_until_a_time_and_then_lets_one_probe_through():
    circuit = failed(1)
    assert state_of(circuit, 104.9) is CircuitState.OPEN
    assert state_of(circuit, 105.0) is CircuitState.HALF_OPEN


@pytest.mark.parametrize(("failures", "opens_for"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (5000, 60)])
def test_each_failure_doubles_the_time_up_to_a_minute(failures, opens_for):
    assert failed(failures).open_until == 100 + opens_for
    assert failed(failures, jitter=0.0).open_until == 100 + opens_for / 2


def test_the_configured_cap_is_kept():
    assert failed(9, retry=RetryTable(first_s=1, max_s=3)).open_until == 103


def test_success_closes_it():
    assert state_of(after_success(), 0.0) is CircuitState.CLOSED


def test_a_person_may_have_it_probed_at_once():
    assert state_of(probe_now(failed(3), 101.0), 101.0) is CircuitState.HALF_OPEN


def test_people_see_state_reason_and_when_it_is_tried_again():
    seen = view(failed(2), 103.0)
    assert (seen.state, seen.failures, seen.reason, seen.retry_in_s) == (CircuitState.OPEN, 2, "connection refused", 7.0)
    assert view(CLOSED, 103.0).retry_in_s is None
