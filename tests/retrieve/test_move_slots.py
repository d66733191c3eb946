"""Move slots of a source: the job that moves next, and the one that makes way."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.domain import Priority
from gateway.retrieve.source import Slot, Slots, asked_back
from tests.support.waiting import PATIENCE_S

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH
DEADLINE_S = PATIENCE_S
priorities = st.lists(st.sampled_from(list(Priority)), max_size=8)


async def test_the_most_urgent_is_next_and_then_whoever_came_first() -> None:
    slots, order = Slots(1), list[str]()

    async def use(name: str, priority: Priority) -> None:
        async with slots.take(priority):
            order.append(name)

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery, slots.take(HIGH):
            for name, priority in (("a", LOW), ("b", NORMAL), ("c", HIGH), ("d", NORMAL)):
                nursery.start_soon(use, name, priority)
                await trio.testing.wait_all_tasks_blocked()

    assert order == ["c", "b", "d", "a"]
    assert slots.held == 0


async def test_whoever_is_urgent_gets_a_slot_back_and_its_owner_is_next() -> None:
    slots, order = Slots(1), list[str]()

    async def migrate() -> None:
        number = None
        for part in ("first half", "second half"):
            async with slots.take(LOW, number=number) as slot:
                number = slot.number
                order.append(part)
                with slot.scope:
                    await (trio.sleep_forever if part == "first half" else trio.lowlevel.checkpoint)()

    async def wait_in_line() -> None:
        async with slots.take(LOW):
            order.append("later one")

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(migrate)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait_in_line)
            await trio.testing.wait_all_tasks_blocked()
            async with slots.take(HIGH):
                order.append("urgent")

    assert order == ["first half", "urgent", "second half", "later one"]


async def test_a_waiter_that_is_cancelled_leaves_the_queue() -> None:
    slots = Slots(1)
    async with slots.take(NORMAL):
        with trio.move_on_after(0):
            async with slots.take(NORMAL):
                pytest.fail("there was no slot")
    async with slots.take(NORMAL):
        assert slots.held == 1


@given(priorities, priorities)
def test_only_what_is_high_drives_out_and_only_what_is_less_urgent(held: list[Priority], waiting: list[Priority]) -> None:
    slots = {Slot(priority, number) for number, priority in enumerate(held)}
    chosen = asked_back(slots, sorted(waiting, reverse=True))

    urgent, lower = waiting.count(HIGH), [priority for priority in held if priority < HIGH]
    assert sorted(slot.priority for slot in chosen) == sorted(lower)[: min(urgent, len(lower))]
    for slot in chosen:
        slot.asked_back = True
    assert asked_back(slots, sorted(waiting, reverse=True)) == []
