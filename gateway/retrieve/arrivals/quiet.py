"""Waiting until what a C-MOVE was answered for has come, or nothing more comes. Runs in trio."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gateway.core.tasks.wake_ups import Pulse
from gateway.retrieve.arrivals.correlate import Watch
from gateway.retrieve.recovery import Patience


@dataclass(frozen=True)
class Settled:
    """The arrivals after the final response; `in_vain` when the source had claimed more and it was waited for to the end."""

    arrived: bool
    in_vain: bool


async def settle(
    watch: Watch,
    signal: Pulse,
    patience: Patience,
    *,
    missing: Callable[[], int | None],
    claims_more: Callable[[], bool],
    asynchronous: bool,
    disproved: bool,
) -> Settled:
    """Wait until the arrivals at `watch` are quiet, or all came; a source that answers before it sends is found out here."""
    began, before = time.monotonic(), watch.arrivals
    waited_in_vain = False
    with signal.listening():
        while True:
            now = time.monotonic()
            pause = patience.pause(
                missing=missing(),
                claims_more=claims_more(),
                asynchronous=asynchronous,
                disproved=disproved,
                quiet_s=now - max(began, watch.last_arrival),
                fruitless_s=now - max(began, watch.last_new),
            )
            if pause <= 0:
                break
            with trio.move_on_after(pause) as scope:
                await signal.wait()
            waited_in_vain = scope.cancelled_caught
    return Settled(watch.arrivals > before, waited_in_vain and claims_more())
