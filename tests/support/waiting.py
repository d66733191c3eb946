"""Deadlines for tests: wait until something is so, or fail saying what never came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

PATIENCE_S = 60.0
"""A deadline for what comes for certain, which the busiest machine meets. A test that wants one to run out has its own."""

_PAUSE = threading.Event()


def in_time() -> float:
    """Return a deadline, in monotonic seconds, for what comes for certain."""
    return time.monotonic() + PATIENCE_S


def wait_until(condition: Callable[[], T], what: str, *, deadline_s: float = PATIENCE_S, pause_s: float = 0.02) -> T:
    """Return the first true result of `condition`; fail after `deadline_s` seconds with `what` was awaited."""
    end = time.monotonic() + deadline_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(f"within {deadline_s:g} s there was never: {what}")
        _PAUSE.wait(pause_s)


async def until(condition: Callable[[], object], what: str, deadline_s: float = PATIENCE_S) -> None:
    """Wait, on trio, until `condition` holds, at most `deadline_s`. Raises AssertionError with `what` never came about."""
    with trio.move_on_after(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is awaited lies in a ledger or with a peer
            await trio.sleep(0.01)
        return
    raise AssertionError(f"never: {what}")
