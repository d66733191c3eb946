"""Copies that several destinations wait for, transcoded at once."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

import trio

from gateway.codec.available import capabilities
from gateway.codec.workers.pool import Pool
from gateway.core.domain import Content, Mode
from gateway.delivery.destination import OpenBytes
from gateway.delivery.forms import Forms
from gateway.delivery.transcoding.copies import Copies
from gateway.delivery.transcoding.transcoder import Transcoder
from gateway.dicom.syntaxes import EXPLICIT_LITTLE
from gateway.ledger.database.schema import deliveries
from gateway.spool import Spool
from tests.support.data import real_file
from tests.support.waiting import PATIENCE_S, until

DEADLINE_S = PATIENCE_S


class Gate:
    """A spool whose bytes are opened only once `opened` is set."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.asked, self.opened = threading.Event(), threading.Event()

    def open(self, content: Content) -> AbstractContextManager[OpenBytes]:
        self.asked.set()
        assert self.opened.wait(DEADLINE_S)
        return self._spool.open(content)


def wait_for_transcoding(store, destination):
    """Have the deliveries to `destination` wait, as they do once a session found out what is accepted."""
    values = {"state": "deferred", "due_at": 1e12, "sent_as": EXPLICIT_LITTLE, "awaits_transcoding": True}
    change = deliveries.update().where(deliveries.c.destination == destination).values(**values)
    store.ledger.write(lambda connection: connection.execute(change).rowcount)


async def test_a_copy_wanted_by_another_destination_while_made_is_due_there_too(store):
    store.add_file(real_file("MR_small_implicit.dcm"), "one", "other")
    gate = Gate(store.spool)
    copies = Copies(store.folder / "transcoded", gate)
    forms = {name: Forms(Mode.EXPLICIT_LE, can=capabilities(), copies=copies) for name in ("one", "other")}
    looks = []
    with Pool(2) as pool:
        transcoder = Transcoder(
            store.ledger, gate, copies, pool, forms, changed=lambda _name: None, has_room=lambda: not looks.append(None)
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(transcoder.run)
            wait_for_transcoding(store, "one")
            transcoder.nudge()
            await until(gate.asked.is_set, "it is being made")
            await until(lambda: transcoder._look_at > 0 and not transcoder._looking, "nobody looks any more")
            seen = len(looks)
            wait_for_transcoding(store, "other")
            transcoder.nudge()
            await until(lambda: len(looks) > seen and not transcoder._looking, "it was seen that another wants it")
            gate.opened.set()
            await until(lambda: store.states() == ["pending", "pending"], "both are due")
            nursery.cancel_scope.cancel()
