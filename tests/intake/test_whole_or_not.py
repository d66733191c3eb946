"""Files of any kind, cut anywhere: an instance verified at a destination has the elements of its file, each of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.settings import FolderDestination
from gateway.core.domain import Consignment, Proof
from gateway.delivery.adapters.folder import Folder, relative_path
from gateway.delivery.destination import Outcome, OutcomeKind
from gateway.intake import FileEvent, FileOutcome, register
from gateway.ledger import Ledger
from gateway.ledger.received.instances import find
from gateway.spool import Spool
from tests.fuzz import part10 as fuzz
from tests.support import meta
from tests.support.meta import EXPLICIT, IMPLICIT
from tests.support.reading import by_pydicom

_numbers = itertools.count(1)

VRS = {
    b"LO": st.binary(max_size=20),
    b"US": st.binary(min_size=2, max_size=2),
    b"OB": st.binary(max_size=60),
    b"UN": st.binary(max_size=20),
}
ODD_UID = st.sampled_from(["1.2.abc", "1.2 3", "1" * 70, "A/../B", "1.2"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Return a file of any shape: elements in any order, odd UIDs, File Meta Information as careless writers write it."""
    syntax = draw(st.sampled_from([EXPLICIT, IMPLICIT]))
    instance = f"1.2.3.{next(_numbers)}"
    elements = meta.values(instance, study=draw(ODD_UID), series=draw(ODD_UID))
    for _ in range(draw(st.integers(0, 4))):
        vr = draw(st.sampled_from(sorted(VRS)))
        elements.append((draw(st.integers(0x0009, 0x7FDF)) << 16 | draw(st.integers(0x1000, 0x10FF)), vr, draw(VRS[vr])))
    elements = draw(st.permutations(elements)) if draw(st.booleans()) else sorted(elements)
    extra = draw(
        st.sampled_from(
            [
                b"",
                meta.explicit(0x00020103, b"SQ", meta.ITEM + meta.ITEM_END + meta.SEQUENCE_END, undefined=True),
                meta.explicit(0x00020102, b"OB", bytes(500)),
            ]
        )
    )
    head = meta.meta(syntax, instance, extra=extra, length=draw(st.sampled_from([0, 0, None, 8, -8])))
    before = draw(st.sampled_from([b"", b"", meta.implicit(0x00020003, b"1.2.3")])) if syntax == IMPLICIT else b""
    return head + before + meta.data_set(syntax, elements)


class Sender:
    """Sends one file at a time to a folder destination, and keeps what it is proved to have."""

    def __init__(self, spool: Spool, ledger: Ledger, folder: Path) -> None:
        self._spool, self._ledger, self._folder = spool, ledger, folder
        self._root = folder / "archive"
        self._session = Folder("archive", FolderDestination(kind="folder", path=self._root), spool).open()

    def send(self, file: bytes) -> tuple[FileEvent, bytes | None]:
        """Return what became of `file`, and the whole file that the destination verified of it."""
        path = self._folder / f"{next(_numbers)}.dcm"
        path.write_bytes(file)
        (event,) = register([path], ["archive"], self._spool, self._ledger, ae_title="GATEWAY")
        if event.outcome is not FileOutcome.QUEUED:
            return event, None
        assert event.identity is not None
        with self._ledger.read() as connection:
            row = next(one for one in find(connection, event.identity.sop_instance_uid) if one.id == event.instance_id)
        outcomes: list[Outcome] = []
        consignment = Consignment(1, row.id, "archive", row.identity, row.content, attempts=0)
        self._session.deliver([consignment], lambda outcome: outcomes.append(outcome) or True)
        (outcome,) = outcomes
        if outcome.proof is not Proof.EXISTS:
            return event, None
        assert outcome.kind in (OutcomeKind.STORED, OutcomeKind.FOUND)
        return event, (self._root / relative_path(row.identity, row.content.digest)).read_bytes()


@pytest.fixture
def sender(spool: Spool, ledger: Ledger, tmp_path: Path) -> Iterator[Sender]:
    folder = tmp_path / "files"
    folder.mkdir()
    yield Sender(spool, ledger, folder)


def is_the_same(source: bytes, delivered: bytes) -> bool:
    """Tell whether two files have the same data set, as pydicom reads it and as the bytes are."""
    ours, theirs = by_pydicom(delivered), by_pydicom(source)
    assert delivered[:132] == meta.PREAMBLE
    return ours is not None and theirs is not None and ours == theirs


_MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@_MANY
@given(file=files())
def test_what_is_whole_is_delivered_and_verified_as_it_is(sender: Sender, file: bytes) -> None:
    event, delivered = sender.send(file)
    assert delivered is not None, event
    assert is_the_same(file, delivered)
    assert "unknown" not in event.reason


@_MANY
@given(file=files(), share=st.floats(0, 1, exclude_max=True))
def test_what_is_verified_of_a_file_that_was_cut_is_what_the_file_has(sender: Sender, file: bytes, share: float) -> None:
    cut = file[: int(len(file) * share)]
    event, delivered = sender.send(cut)
    if delivered is None:
        assert event.outcome in (FileOutcome.FAILED, FileOutcome.SKIPPED)
        return
    assert event.length > 0
    assert delivered.endswith(cut[-event.length :])
    # A header that is cut off is nothing to pydicom, neither in the source nor at the destination: then the bytes have to do.
    assert is_the_same(cut, delivered) or by_pydicom(cut) is by_pydicom(delivered) is None


def test_a_file_cut_within_the_last_header_is_delivered_as_it_is(sender: Sender) -> None:
    elements = [*meta.values(f"1.2.8.{next(_numbers)}"), (0x7FE00010, b"OW", bytes(32))]
    whole = meta.meta() + meta.data_set(EXPLICIT, elements)
    for missing in range(33, 45):
        event, delivered = sender.send(whole[:-missing])
        assert delivered is not None and delivered.endswith(whole[-event.length - missing : -missing])


def test_nothing_is_verified_of_a_file_without_a_data_set(sender: Sender) -> None:
    for length in (0, None, 8):
        head = meta.meta(instance=f"1.2.9.{next(_numbers)}", length=length)
        for size in range(132, len(head) + 1):
            event, delivered = sender.send(head[:size])
            assert (event.outcome, event.reason, delivered) == (FileOutcome.FAILED, "ends within its header", None), size


def test_real_files_damaged_in_the_head_are_verified_whole_or_not_at_all(sender: Sender) -> None:
    verified = 0
    for position, seed in enumerate(fuzz.seeds()):
        for number in range(2):
            file = fuzz.mutate(seed, random.Random(f"{position} {number}"))
            event, delivered = sender.send(file)
            if delivered is not None:
                verified += 1
                assert event.length > 0
                assert delivered.endswith(file[-event.length :])
    assert verified > 50


def test_it_is_said_of_an_instance_that_its_head_could_not_be_read(sender: Sender) -> None:
    elements = [one for one in meta.values(f"1.2.8.{next(_numbers)}") if one[0] != 0x0020000D]
    file = meta.meta() + meta.data_set(EXPLICIT, [*elements, (0x7FE10010, b"OB", bytes(10))])[:-2]
    event, delivered = sender.send(file)
    assert (event.outcome, event.reason) == (FileOutcome.QUEUED, "the data set ends within an element")
    assert delivered is not None
