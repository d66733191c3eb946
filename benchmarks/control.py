"""A running gateway asked and steered over its control socket, as its commands do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from gateway.config.loading import load
from gateway.config.settings import Settings
from gateway.control.client import Ask, Client, connect
from gateway.control.wire import QueueAction, QueueFilter
from gateway.ledger.deliveries.queue import Action
from tests.support.gateway import Gateway
from tests.support.waiting import wait_until

SETTLE_S = 300.0
LOOK_S = 0.02


def _nobody(_settings: Settings) -> AbstractContextManager[Ask]:
    raise AssertionError("the gateway does not run")


@contextmanager
def client(gateway: Gateway) -> Iterator[Client]:
    """Give a client of a running gateway."""
    with connect(load(gateway.config, {}), local=_nobody) as found:
        yield found


def act(gateway: Gateway, action: Action) -> None:
    """Do what a person may do with every delivery."""
    with client(gateway) as found:
        found.post("/queue/act", QueueAction(action=action, where=QueueFilter(everything=True)))


def kept(gateway: Gateway) -> int:
    """Return how many instances the ledger knows whose bytes are kept."""
    with client(gateway) as found:
        return int(found.get("/status")["instances"]["kept"])


def let_go(gateway: Gateway, count: int) -> None:
    """Drop all deliveries, as a person may, until the bytes of `count` instances are released.

    Raises:
        AssertionError: they never were.
    """

    def released() -> bool:
        act(gateway, Action.DROP)
        with client(gateway) as found:
            return bool(found.get("/status")["instances"]["released"] >= count)

    wait_until(released, f"{count} instances released", deadline_s=SETTLE_S, pause_s=0.2)


def all_delivered(gateway: Gateway, count: int) -> None:
    """Wait until `count` deliveries are verified.

    Raises:
        AssertionError: they never were.
    """
    with client(gateway) as found:
        wait_until(lambda: _verified(found) >= count, f"{count} deliveries verified", deadline_s=SETTLE_S, pause_s=LOOK_S)


def _verified(found: Client) -> int:
    destinations: list[dict[str, Any]] = found.get("/status")["destinations"]
    return sum(int(destination["settled"].get("verified", 0)) for destination in destinations)
