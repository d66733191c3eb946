"""The next act of a worker without work, by the state of its destination."""

from __future__ import annotations

import math

from gateway.delivery.lanes.circuit import Circuit
from gateway.delivery.lanes.worker_state import GATHER_S, LITTLE, Act, Step, WorkerState, is_probe, next_step

NOW = 1000.0
WAIT = Step(Act.WAIT)


def act(now: float = NOW, *, close_at: float = math.inf, **values) -> Act:
    return next_step(WorkerState(**({"look_at": math.inf} | values)), now, close_at).act


def until(now: float = NOW, *, close_at: float = math.inf, **values) -> float:
    step = next_step(WorkerState(**({"look_at": math.inf} | values)), now, close_at)
    assert step.act is Act.WAIT
    return step.until


def test_a_new_lane_looks_at_once():
    assert next_step(WorkerState(), NOW).act is Act.CLAIM


def test_without_a_reason_to_look_there_is_nothing_to_wait_for():
    assert until() == math.inf


def test_it_looks_when_a_delivery_falls_due():
    assert until(look_at=NOW + 3) == NOW + 3
    assert act(now=NOW + 3, look_at=NOW + 3) is Act.CLAIM


def test_one_worker_looks_at_a_time():
    assert until(look_at=NOW, looking=True) == math.inf


def test_little_that_comes_while_others_are_at_work_is_gathered():
    assert until(look_at=NOW, at_work=1, claimed=LITTLE - 1) == NOW + GATHER_S
    assert act(now=NOW + GATHER_S, look_at=NOW, at_work=1, claimed=LITTLE - 1) is Act.CLAIM


def test_nothing_is_gathered_where_nobody_is_at_work_or_much_was_due():
    assert act(look_at=NOW, at_work=0, claimed=1) is Act.CLAIM
    assert act(look_at=NOW, at_work=3, claimed=LITTLE) is Act.CLAIM


def test_what_is_to_be_recorded_goes_with_a_claim_where_one_is_due():
    assert act(look_at=NOW, settled_at=NOW) is Act.CLAIM


def test_recording_waits_a_moment_for_a_claim_while_others_are_at_work():
    assert act(settled_at=NOW) is Act.RECORD
    assert until(settled_at=NOW, at_work=1) == NOW + GATHER_S


def test_an_open_circuit_lets_nothing_be_claimed_before_its_time():
    circuit = Circuit(failures=1, open_until=NOW + 5)
    assert until(look_at=NOW, circuit=circuit) == NOW + 5
    assert act(now=NOW + 5, look_at=NOW, circuit=circuit) is Act.CLAIM
    assert act(look_at=NOW, circuit=circuit, settled_at=NOW) is Act.RECORD


def test_while_one_instance_finds_out_nothing_else_is_claimed():
    half_open = WorkerState(circuit=Circuit(failures=1, open_until=NOW), look_at=NOW)
    assert is_probe(half_open, NOW)
    half_open.probing = True
    assert next_step(half_open, NOW) == WAIT
    assert not is_probe(WorkerState(), NOW)


def test_a_ledger_that_could_not_be_written_is_left_alone_for_a_while():
    assert until(look_at=NOW, settled_at=NOW, rest_until=NOW + 1) == NOW + 1


def test_an_idle_session_is_closed_unless_there_is_work():
    assert until(close_at=NOW + 2, look_at=NOW + 60) == NOW + 2
    assert act(close_at=NOW, look_at=NOW + 60) is Act.CLOSE
    assert act(close_at=NOW, look_at=NOW) is Act.CLAIM
    assert until(close_at=NOW, look_at=NOW, at_work=1) == NOW + GATHER_S


def test_outside_the_hours_outcomes_are_recorded_and_nothing_is_claimed():
    assert until(look_at=NOW, shut_until=NOW + 60) == NOW + 60
    assert act(look_at=NOW, shut_until=NOW + 60, settled_at=NOW) is Act.RECORD
    assert act(now=NOW + 60, look_at=NOW, shut_until=NOW + 60) is Act.CLAIM


def test_outside_the_hours_an_idle_session_is_closed_despite_work():
    assert act(close_at=NOW, look_at=NOW, shut_until=NOW + 60) is Act.CLOSE


def test_a_lane_that_stops_begins_nothing():
    assert act(look_at=NOW, settled_at=NOW, stopping=True) is Act.LEAVE
    assert act(looking=True, stopping=True) is Act.LEAVE
