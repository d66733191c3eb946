"""The gateway's log as a target sees it: events that must never be, and no output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog


class Impossible(AssertionError):
    """The gateway caught what it should never have met."""


_seen: list[MutableMapping[str, Any]] = []


def _note(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    _seen.append(event)
    raise structlog.DropEvent


def configure() -> None:
    """Keep events instead of writing them."""
    structlog.configure(processors=[_note], cache_logger_on_first_use=False)


@contextmanager
def watched(impossible: Collection[str]) -> Iterator[None]:
    """Raise for each of the `impossible` events that is logged meanwhile. Raises Impossible."""
    _seen.clear()
    yield
    for event in _seen:
        if event["event"] in impossible:
            raise Impossible(dict(event))
