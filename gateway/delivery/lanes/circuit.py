"""The circuit breaker of a destination: closed, open until a time, then half-open for one probe. Pure.

Failures of the way to a destination (no connection, rejected, broken before any answer) are counted here and never against an
instance. Times are seconds of whatever monotonic clock the caller uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.config.settings import RetryTable
from gateway.core.backoff import doubling_s

MAX_OPEN_S = 60.0
"""A destination that is down is tried at least once a minute: a connection costs nothing, a long outage's end should show."""


class CircuitState(StrEnum):
    """The state of a destination's circuit, which says whether it may be tried."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """The recent state of the way to one destination."""

    failures: int = 0
    open_until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CircuitView:
    """A circuit as people see it; `retry_in_s` is None unless it is open."""

    state: CircuitState
    failures: int
    reason: str
    retry_in_s: float | None


CLOSED = Circuit()


def state_of(circuit: Circuit, now: float) -> CircuitState:
    """Return how `circuit` stands at `now`: half-open once the time of an open one has come."""
    if circuit.failures == 0:
        return CircuitState.CLOSED
    return CircuitState.OPEN if now < circuit.open_until else CircuitState.HALF_OPEN


def after_failure(circuit: Circuit, *, now: float, retry: RetryTable, jitter: float, reason: str) -> Circuit:
    """Open the circuit: exponential from `retry.first_s`, capped, a half of it at random (`jitter` from 0 to 1)."""
    failures = circuit.failures + 1
    longest = doubling_s(retry.first_s, min(retry.max_s, MAX_OPEN_S), failures)
    return Circuit(failures, now + longest * (0.5 + jitter / 2), reason)


def after_success() -> Circuit:
    """Close the circuit: the destination answered."""
    return CLOSED


def probe_now(circuit: Circuit, now: float) -> Circuit:
    """Let an open circuit be tried at once, because someone says that it is worth it."""
    return Circuit(circuit.failures, min(circuit.open_until, now), circuit.reason)


def view(circuit: Circuit, now: float) -> CircuitView:
    """Return what people see of `circuit`."""
    state = state_of(circuit, now)
    wait = circuit.open_until - now if state is CircuitState.OPEN else None
    return CircuitView(state, circuit.failures, circuit.reason, wait)
