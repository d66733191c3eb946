"""Destinations that deliver and transcode as a running gateway does, without the rest of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from gateway.app import assembly
from gateway.codec.available import capabilities
from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.delivery import Dispatcher
from gateway.delivery.adapters.acceptance import Acceptance
from gateway.delivery.build import destinations, forms
from gateway.delivery.forms import Forms
from gateway.delivery.transcoding.copies import Copies
from gateway.delivery.transcoding.transcoder import Transcoder
from tests.support.instances import Store


@dataclass
class Working:
    """The parts of delivery that work on a `Store`."""

    dispatcher: Dispatcher
    transcoder: Transcoder
    copies: Copies
    forms: dict[str, Forms]


def acceptance(store: Store, name: str) -> Acceptance:
    """Return what the ledger knows of a destination, as a gateway does that starts now."""
    # A write waits for those submitted before it.
    store.ledger.write(lambda _connection: None)
    return assembly._acceptance(store.ledger, name)


@asynccontextmanager
async def working(
    store: Store,
    settings: Settings,
    pool: Pool,
    *,
    changed: Callable[[str], None] = lambda _name: None,
    has_room: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Working]:
    """Deliver and transcode for the destinations of `settings`; `changed` hears of their deliveries."""
    copies = Copies(store.folder / "transcoded", store.spool)
    wanted = forms(settings, copies, capabilities(), acceptance=partial(assembly._acceptance, store.ledger))

    def recorded(name: str) -> None:
        transcoder.made_room()
        changed(name)

    transcoder = Transcoder(
        store.ledger,
        store.spool,
        copies,
        pool,
        wanted,
        changed=lambda name: dispatcher.nudge(name),  # noqa: PLW0108 - it is made below
        has_room=has_room,
    )
    dispatcher = Dispatcher(store.ledger, destinations(settings, copies, wanted), changed=recorded, to_transcode=transcoder.nudge)
    async with trio.open_nursery() as nursery:
        await nursery.start(transcoder.run)
        await nursery.start(dispatcher.run)
        yield Working(dispatcher, transcoder, copies, wanted)
        nursery.cancel_scope.cancel()
