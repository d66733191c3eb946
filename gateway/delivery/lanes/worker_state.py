"""The shared state of one destination's workers, and the next step of an idle one. Pure; times are seconds of the monotonic clock.

Claims and records that come while others are at work are gathered for a moment, because each transaction of the ledger
costs a commit; where nobody is at work, nothing waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto

from gateway.delivery.lanes import circuit as circuits
from gateway.delivery.lanes.circuit import CLOSED, Circuit, CircuitState

GATHER_S = 0.02
"""While others are at work and little is due, this much time may bring more."""

LINGER_S = 0.25
"""The longest wait of work that nobody is in a hurry for: it goes out with more that comes meanwhile."""

LITTLE = 16
"""A claim that brought fewer instances than this found little."""

LONGEST_SLEEP_S = 60.0
"""A lost nudge, or a wall clock that was set, costs at most this."""


class Act(Enum):
    """The next step of a worker."""

    LEAVE = auto()
    """End: the lane stops."""

    CLAIM = auto()
    """Claim what is due, and record in the same transaction what there is to record."""

    RECORD = auto()
    """Record what there is to record."""

    CLOSE = auto()
    """Close the session, which had nothing to do for long enough."""

    WAIT = auto()
    """Wait for something to change."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step to take; with `WAIT`, at most until `until`."""

    act: Act
    until: float = math.inf


@dataclass(slots=True)
class WorkerState:
    """The state that the workers of a destination share; a thread that reads or writes it holds their lock."""

    circuit: Circuit = CLOSED
    look_at: float = -math.inf
    """The time at which to look for work: a nudge came, more was due than was claimed, or a delivery falls due."""

    stopping: bool = False
    looking: bool = False
    """A worker is in the transaction that claims; one at a time."""

    probing: bool = False
    """The one instance that a half-open circuit lets through is on its way."""

    at_work: int = 0
    """The number of batches that are on their way."""

    claimed: int = 0
    """The number of instances that the last claim brought."""

    settled_at: float = math.inf
    """The time since which outcomes of a batch that has ended wait to be recorded."""

    rest_until: float = -math.inf
    """The ledger could not be written and is left alone until then."""

    shut_until: float = -math.inf
    """The destination is not to be delivered to before, by its hours."""


def next_step(shared: WorkerState, now: float, close_at: float = math.inf) -> Step:
    """Return what a worker without work does at `now`; its session, where it is open, is to be closed at `close_at`."""
    if shared.stopping:
        return Step(Act.LEAVE)
    claim_at, record_at = _claim_at(shared), _record_at(shared)
    if claim_at <= now:
        return Step(Act.CLAIM)
    if record_at <= now:
        return Step(Act.RECORD)
    if close_at <= now < max(shared.look_at, shared.shut_until):
        return Step(Act.CLOSE)
    return Step(Act.WAIT, min(claim_at, record_at, close_at if close_at > now else math.inf))


def is_probe(shared: WorkerState, now: float) -> bool:
    """Tell whether what is claimed at `now` is the one instance that finds out whether the destination is back."""
    return circuits.state_of(shared.circuit, now) is CircuitState.HALF_OPEN


def _claim_at(shared: WorkerState) -> float:
    if shared.looking or shared.probing:
        return math.inf
    gather_s = GATHER_S if shared.at_work and shared.claimed < LITTLE else 0.0
    return max(shared.look_at + gather_s, shared.circuit.open_until, shared.rest_until, shared.shut_until)


def _record_at(shared: WorkerState) -> float:
    gathered_at = shared.settled_at + (GATHER_S if shared.at_work else 0.0)
    claim_at = _claim_at(shared)
    # The next claim records it in passing.
    return max(claim_at if claim_at <= shared.settled_at + LINGER_S else gathered_at, shared.rest_until)
