"""A running gateway asked and steered over its control socket, and its ledger read beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from gateway.config import load
from gateway.ledger.queue import Action
from gateway.settings import Settings
from gateway.web.client import Client, connect
from gateway.web.wire import QueueAction, QueueFilter
from tests.support.gateway import Gateway


def _nobody(_settings: Settings) -> AbstractContextManager[None]:
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


def delivered(gateway: Gateway) -> int:
    """Return how many deliveries are verified."""
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM deliveries WHERE state = 'verified'").fetchone()[0])
