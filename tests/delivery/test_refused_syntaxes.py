"""Cost of a refused transfer syntax, counted in associations at a real storescp."""

from __future__ import annotations

import re

import pytest

from gateway.codec.workers.pool import Pool
from gateway.config.settings import Settings
from gateway.dicom.syntaxes import JPEG_BASELINE
from tests.support import data
from tests.support.dcmtk import only, storescp
from tests.support.ports import HOST
from tests.support.transcoders import working
from tests.support.waiting import until

pytestmark = pytest.mark.peers("storescp")

CT = "1.2.840.10008.5.1.4.1.1.2"
IDLE_CLOSE_S = 3.0
"""Longer than it takes to transcode a batch of small instances: the association that was made to ask serves for sending too."""


@pytest.fixture
def uncompressed_only(tmp_path):
    with storescp(tmp_path / "scp", "+v", *only(tmp_path / "scp.cfg", [CT], ["LittleEndianExplicit"])) as peer:
        yield peer


def settings(port):
    table = {"kind": "dicom", "ae_title": "PEER", "host": HOST, "port": port, "verify": "status", "associations": 1}
    return Settings.model_validate({"destinations": {"scp": table | {"idle_close_s": IDLE_CLOSE_S}}})


def associations(peer):
    """Count them by the log; what only looked whether the port listens had no application context."""
    return peer.process.output.count("Association Received") - peer.process.output.count("Bad Application Context Name")


def proposals(peer, name):
    return len(re.findall(rf"Proposed Transfer Syntax\(es\):\n.*={name}\b", peer.process.output))


def released(peer):
    return len(re.findall(r"Association (Release|Abort)", peer.process.output)) >= associations(peer)


async def deliver(store, peer, batches, add):
    """Deliver, as a gateway that was started for it, so many batches, each on an association of its own."""
    with Pool(2) as pool:
        async with working(store, settings(peer.port), pool) as at_work:
            for _ in range(batches):
                await until(lambda: released(peer), "the association of the batch before released")
                add()
                at_work.dispatcher.nudge("scp")
                await until(lambda: set(store.states()) <= {"verified", "held"}, "the batch settled")


async def test_a_refused_syntax_costs_one_association_at_most_across_restarts(store, uncompressed_only, tmp_path):
    series = iter(data.ct_series(tmp_path / "ct", 10, j2k=True))

    def add():
        store.add_file(next(series), "scp")
        store.add_file(next(series), "scp")

    await deliver(store, uncompressed_only, 3, add)
    await deliver(store, uncompressed_only, 2, add)
    assert set(store.states()) == {"verified"}
    assert len(uncompressed_only.received()) == 10
    assert proposals(uncompressed_only, "JPEG2000LosslessOnly") == 1
    assert associations(uncompressed_only) <= 5 + 1


async def test_a_refused_untranscodable_syntax_is_asked_once_across_restarts(store, uncompressed_only):
    def add():
        store.add_synthetic("scp", count=2, syntax=JPEG_BASELINE)

    await deliver(store, uncompressed_only, 3, add)
    await deliver(store, uncompressed_only, 2, add)
    assert store.states() == ["held"] * 10
    assert associations(uncompressed_only) == 1
