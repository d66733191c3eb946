"""Word to a run of trio from threads."""

from __future__ import annotations

import math

import trio

from gateway.core.tasks.wake_ups import Pulse, ThreadEvent, WakeUp, tell_trio
from tests.support.waiting import PATIENCE_S


async def test_an_event_set_on_a_thread_wakes_whoever_waits() -> None:
    event = ThreadEvent()
    await trio.to_thread.run_sync(event.set)
    with trio.fail_after(PATIENCE_S):
        await event.wait()
    assert event.is_set()


async def test_a_hint_before_the_wait_is_remembered_once() -> None:
    wake_up = WakeUp()
    await trio.to_thread.run_sync(wake_up.give)
    await trio.to_thread.run_sync(wake_up.give)
    with trio.fail_after(PATIENCE_S):
        await wake_up.wait(math.inf)
    with trio.move_on_after(0) as scope:
        await wake_up.wait(math.inf)
    assert scope.cancelled_caught


async def test_a_pulse_wakes_all_who_listen_and_is_not_kept() -> None:
    pulse, woken = Pulse(), list[str]()

    async def listen(name: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with pulse.listening():
            task_status.started()
            await pulse.wait()
            woken.append(name)

    await trio.to_thread.run_sync(pulse.give)  # nobody listens
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(listen, "one")
            await nursery.start(listen, "other")
            assert woken == []
            await trio.to_thread.run_sync(pulse.give)
    assert sorted(woken) == ["one", "other"]


def test_after_the_run_nobody_is_told() -> None:
    async def made() -> tuple[trio.lowlevel.TrioToken, ThreadEvent, WakeUp]:
        return trio.lowlevel.current_trio_token(), ThreadEvent(), WakeUp()

    token, event, wake_up = trio.run(made)
    event.set()
    wake_up.give()
    assert not event.is_set()
    assert not tell_trio(token, lambda: None)
