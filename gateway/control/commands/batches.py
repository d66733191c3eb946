"""Files handled on a thread in pieces: between two of them the client hears of it, and may stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

import trio

T = TypeVar("T")

BATCH_FILES = 200
"""Files of one piece."""

BATCH_S = 0.5
"""The time that one takes."""


async def next_batch(events: Iterator[T]) -> list[T]:
    """Return what comes next of `events`, which block; empty at their end."""
    return await trio.to_thread.run_sync(_batch, events)


def _batch(events: Iterator[T]) -> list[T]:
    batch: list[T] = []
    end = time.monotonic() + BATCH_S
    for event in events:
        batch.append(event)
        if len(batch) >= BATCH_FILES or time.monotonic() >= end:
            break
    return batch
