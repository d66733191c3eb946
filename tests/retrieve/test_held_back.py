"""A source that we hold back by its `max_rate` takes its time, and is not given up for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import trio

from gateway.association.dimse.requests import SubOperations
from gateway.retrieve.operations import Move
from gateway.retrieve.recovery import End
from gateway.retrieve.source import SourceAssociations
from gateway.retrieve.state import Watch
from tests.support.waiting import PATIENCE_S

PROGRESS_TIMEOUT_S = 0.5


class Sending:
    """A requestor whose source says nothing until it has sent all."""

    def __init__(self) -> None:
        self.sent_all = threading.Event()

    def release(self) -> None:
        return None

    def answers(self) -> Iterator[SubOperations]:
        assert self.sent_all.wait(PATIENCE_S), "the source was never told to end"
        yield SubOperations(0x0000, completed=1)

    def cancel(self, _message_id: int) -> None:
        self.sent_all.set()

    def kill(self) -> None:
        self.sent_all.set()


async def moved(watch: Watch, source: Sending) -> End:
    once = SourceAssociations(lambda: source, keeps=False)  # type: ignore[arg-type, return-value]
    move = Move(once, lambda _source: source.answers(), message_id=1, watch=watch)
    return (await move.result(trio.CapacityLimiter(1), PROGRESS_TIMEOUT_S)).end


async def test_as_long_as_bytes_come_a_large_instance_may_take_its_time() -> None:
    source, looks = Sending(), list[float]()

    def flowed_at() -> float:
        looks.append(time.monotonic())
        if len(looks) == 5:
            source.sent_all.set()
        return looks[-1]

    assert await moved(Watch(nudge=lambda: None, flowed_at=flowed_at), source) is End.ANSWERED
    assert len(looks) >= 5


async def test_when_no_bytes_come_either_it_has_stalled() -> None:
    assert await moved(Watch(nudge=lambda: None, flowed_at=lambda: 0.0), Sending()) is End.STALLED
