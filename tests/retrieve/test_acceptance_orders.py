"""Acceptance orders of a source take turns: what one study needs does not change what another has."""

from __future__ import annotations

import trio

from gateway.retrieve.source import AcceptanceOrders


async def test_the_usual_order_holds_again_when_nobody_needs_another() -> None:
    orders: list[str] = []
    turns = AcceptanceOrders("j2k-first", orders.append)

    async with turns.take("uncompressed-first"):
        assert orders == ["uncompressed-first"]
    async with turns.take("j2k-first"), turns.take("j2k-first"):
        pass

    assert orders == ["uncompressed-first", "j2k-first"]


async def test_another_order_waits_for_running_studies_and_later_ones_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    turns = AcceptanceOrders("j2k-first", lambda order: told.append(f"accept {order}"))

    async def study(name: str, order: str, after_s: float) -> None:
        await trio.sleep(after_s)
        async with turns.take(order):  # type: ignore[arg-type]
            told.append(f"{name} begins")
            await trio.sleep(1)
            told.append(f"{name} ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(study, "a", "j2k-first", 0)
        nursery.start_soon(study, "b", "uncompressed-first", 0.1)
        nursery.start_soon(study, "c", "j2k-first", 0.2)

    assert told == [
        *("accept j2k-first", "a begins", "a ends"),
        *("accept uncompressed-first", "b begins", "b ends"),
        *("accept j2k-first", "c begins", "c ends"),
    ]


async def test_what_is_learned_while_a_turn_lasts_holds_after_it() -> None:
    orders: list[str] = []
    turns = AcceptanceOrders("j2k-first", orders.append)

    async with turns.take("j2k-first"):
        turns.learn("uncompressed-first")
        assert orders == ["j2k-first"]

    assert orders == ["j2k-first", "uncompressed-first"]
    assert turns.usual == "uncompressed-first"


async def test_a_turn_that_is_given_up_while_it_is_waited_for_blocks_nobody(autojump_clock: trio.testing.MockClock) -> None:
    turns = AcceptanceOrders("j2k-first", lambda _order: None)

    async with turns.take("j2k-first"):
        with trio.move_on_after(1):
            async with turns.take("uncompressed-first"):
                raise AssertionError
        async with turns.take("j2k-first"):
            pass


async def test_sop_classes_keep_their_own_order_unless_a_step_is_for_all() -> None:
    told: list[tuple[object, ...]] = []
    turns = AcceptanceOrders("j2k-first", lambda *orders: told.append(orders), {"1.2": "as-proposed"})

    async with turns.take("j2k-first"):
        pass
    async with turns.take("j2k-first", for_all=True):
        pass
    async with turns.take("uncompressed-first"):
        turns.learn_classes({"1.3": "uncompressed-first"})

    usual = ("j2k-first", {"1.2": "as-proposed"})
    learned = ("j2k-first", {"1.2": "as-proposed", "1.3": "uncompressed-first"})
    assert told == [usual, ("j2k-first",), usual, ("uncompressed-first",), learned]
