"""The scripted peers do as scripted, against each other and against DCMTK."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import comparing, data, dcmtk, raw
from tests.support.data import MakeSeries
from tests.support.scripted_scp import Received, ScriptedScp

DATA = raw.data_set_of


def test_a_store_arrives_whole(ct_series: MakeSeries) -> None:
    content = DATA(ct_series(1)[0].read_bytes())
    with ScriptedScp(keep_data=True).running() as scp, raw.RawRequestor(scp.port) as scu:
        assert scu.store("1.2.3", [content[:100], content[100:]], move_originator_ae="MOVER", move_originator_message_id=7) == 0
    assert scp.stores == [Received("1.2.3", raw.CT, raw.EXPLICIT_LE, len(content), 1, "MOVER", content)]
    assert scp.released == 1


def test_answers_are_scripted() -> None:
    answers = {1: 0xA700, 2: 0xB000, 3: "abort"}
    with ScriptedScp(answer=lambda nth, _store: answers[nth]).running() as scp:
        scu = raw.RawRequestor(scp.port)
        assert [scu.store("1.1", b"12"), scu.store("1.2", b"34")] == [0xA700, 0xB000]
        with pytest.raises(raw.Ended, match="abort"):
            scu.store("1.3", b"56")
        scu.close()


def test_contexts_and_associations_are_refused_as_scripted() -> None:
    with ScriptedScp(negotiate=lambda *_: None, admit=lambda nth: (2, 3, 2) if nth == 1 else None).running() as scp:
        rejected = raw.RawRequestor(scp.port)
        assert rejected.reply == (raw.ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
        rejected.close()
        with raw.RawRequestor(scp.port) as scu:
            assert scu.accepted == {}


@pytest.mark.peers("storescp")
def test_dcmtk_understands_the_requestor(tmp_path: Path, ct_series: MakeSeries) -> None:
    path = ct_series(1)[0]
    uid = data.identity(path)[2]
    with dcmtk.storescp(tmp_path / "received") as scp:
        with raw.RawRequestor(scp.port) as scu:
            assert scu.store(uid, DATA(path.read_bytes())) == 0
        assert comparing.differences(path, scp.received()[uid]) == []


@pytest.mark.peers("storescu")
def test_dcmtk_understands_the_scripted_acceptor(ct_series: MakeSeries) -> None:
    files = ct_series(3)
    with ScriptedScp().running() as scp:
        dcmtk.storescu(scp.port, *files)
    assert scp.uids == [data.identity(path)[2] for path in files]
