"""The acceptance orders of one source, which retrievals take in turn. Runs in trio.

The order is one for all associations of a source, while several studies may be retrieved from it at a time: a round that
needs another order than those under way waits until they ended, and so do all that come after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from gateway.retrieve.recovery import AcceptanceOrder


class AcceptanceOrders:
    """The acceptance orders of one source, in turn; `usual` holds while nobody has one, with those of single SOP classes."""

    def __init__(
        self, usual: AcceptanceOrder, set_order: Callable[..., None], by_class: Mapping[str, AcceptanceOrder] | None = None
    ) -> None:
        """`set_order` is called with an order, and with the orders of SOP classes where some have their own."""
        self._usual = usual
        self._by_class = dict(by_class or {})
        self._set_order = set_order
        self._now: tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]] | None = None
        self._inside = 0
        self._gate = trio.Lock()
        self._left = trio.Event()

    @property
    def usual(self) -> AcceptanceOrder:
        """The order that works for the source, as far as is known."""
        return self._usual

    @property
    def by_class(self) -> Mapping[str, AcceptanceOrder]:
        """The orders that work for single SOP classes."""
        return self._by_class

    def learn(self, order: AcceptanceOrder) -> None:
        """Make `order` the usual one."""
        self._usual = order
        self._learned()

    def learn_classes(self, orders: Mapping[str, AcceptanceOrder]) -> None:
        """Make `orders` the usual ones of their SOP classes."""
        self._by_class = {**self._by_class, **orders}
        self._learned()

    @asynccontextmanager
    async def take(self, order: AcceptanceOrder, *, for_all: bool = False) -> AsyncIterator[None]:
        """Have transfer syntaxes accepted in `order` inside the ``async with``.

        In the usual order SOP classes keep the orders that they have of their own, unless it is `for_all`.
        """
        wanted = self._orders(order, for_all=for_all)
        async with self._gate:
            while self._inside and self._now != wanted:
                await self._left.wait()
            self._apply(wanted)
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._apply(self._orders(self._usual))
            self._left.set()
            self._left = trio.Event()

    def _orders(self, order: AcceptanceOrder, *, for_all: bool = False) -> tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]]:
        return order, self._by_class if order == self._usual and not for_all else {}

    def _learned(self) -> None:
        if not self._inside:
            self._apply(self._orders(self._usual))

    def _apply(self, orders: tuple[AcceptanceOrder, Mapping[str, AcceptanceOrder]]) -> None:
        if self._now != orders:
            self._now = orders
            order, by_class = orders
            if by_class:
                self._set_order(order, by_class)
            else:
                self._set_order(order)
