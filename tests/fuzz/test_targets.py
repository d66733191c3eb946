"""The fuzz targets hold for what real programs say and for some damage to it; under atheris they run on for a minute."""

from __future__ import annotations

import importlib
import logging
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom.datadict
import pytest
import structlog

from gateway.association.dimse.message import Receiver
from gateway.dicom.head import read_head
from tests.fuzz import acceptor, harness, head, log
from tests.fuzz.__main__ import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
"""pydicom warns of damaged data sets."""

MUTATIONS = 5
SECONDS = 60

SEED = 1
"""Fixed, so that a failure comes from a change of the code. Running `tests.fuzz` for hours finds the unforeseen."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    log.configure()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**before)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations_pass_every_fuzz_target(name: str) -> None:
    target = importlib.import_module(f"tests.fuzz.{name}")
    for position, seed in enumerate(target.seeds()):
        target.one_input(seed)
        for number in range(MUTATIONS):
            target.one_input(harness.mutate(target, seed, random.Random(f"{position} {number}")))


def test_a_byte_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    note = Receiver._note

    def lose_one(self: Receiver, begin: int) -> None:
        note(self, min(begin + 1, self._start))

    monkeypatch.setattr(Receiver, "_note", lose_one)
    with pytest.raises(AssertionError):
        for seed in acceptor.seeds():
            acceptor.one_input(seed)


def test_what_the_gateway_catches_and_should_not_have_met_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Receiver, wait_s: float) -> None:
        raise RuntimeError

    monkeypatch.setattr(Receiver, "receive_message", fail)
    with pytest.raises(log.Impossible):
        acceptor.one_input(next(acceptor.seeds()))


def element(keyword: str, value: bytes, syntax: str, *, length: int | None = None) -> bytes:
    """Return an element that says it has `length` bytes."""
    order, tag = ">" if syntax == head.BIG else "<", pydicom.datadict.tag_for_keyword(keyword) or 0
    length = len(value) if length is None else length
    if syntax == head.IMPLICIT:
        return struct.pack(f"{order}HHL", tag >> 16, tag & 0xFFFF, length) + value
    vr = pydicom.datadict.dictionary_VR(tag).encode()
    return struct.pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, vr, length) + value


UNREADABLE = {
    "cut": lambda syntax, again: again(0xFFFE) + bytes(5000),
    "behind an item's end": lambda syntax, again: _delimiter(syntax, 0xE00D) + again(),
    "behind a sequence's end": lambda syntax, again: _delimiter(syntax, 0xE0DD) + again(),
    "behind a delimiter and cut": lambda syntax, again: (
        _delimiter(syntax, 0xE00D) + again() + element("PatientID", b"", syntax, length=40)
    ),
}
"""Reasons for which pydicom reads only the first of two elements; the gateway reads the second, which counts."""

TWICE = {
    "SOPClassUID": (b"1.2.840.10008.5.1.4.1.1.7\0", b"A "),
    "SOPInstanceUID": (b"1.2.3\0", b"1.2.4\0"),
    "StudyInstanceUID": (b"1.2.3\0", b""),
    "Modality": (b"CT", b"MR"),
    "StudyDate": (b"20240229", b"20240301"),
    "InstanceNumber": (b"1 ", b"24"),
    "SpecificCharacterSet": (b"ISO_IR 100", b"ISO_IR 192"),
}


def _delimiter(syntax: str, number: int) -> bytes:
    return struct.pack(">HHL" if syntax == head.BIG else "<HHL", 0xFFFE, number, 0)


@pytest.mark.parametrize("where", UNREADABLE)
@pytest.mark.parametrize("keyword", TWICE)
@pytest.mark.parametrize("syntax", head.SYNTAXES)
def test_an_element_again_where_pydicom_does_not_read_is_no_difference(syntax: str, keyword: str, where: str) -> None:
    first, second = TWICE[keyword]

    def again(length: int | None = None) -> bytes:
        return element(keyword, second, syntax, length=length)

    begin = element(keyword, first, syntax) + element("StudyDescription", "\u00e9t\u00e9 ".encode(), syntax)
    head.one_input(bytes([head.SYNTAXES.index(syntax)]) + begin + UNREADABLE[where](syntax, again))


READ_OTHERWISE = {
    "a group length of items": struct.pack("<HH2sHL", 0xFFFE, 0, b"UL", 4, 28) + element("Modality", b"CT", head.EXPLICIT),
    "a private item": struct.pack("<HH2sH", 0xFFFE, 0x1001, b"LO", 2) + b"ab" + element("Modality", b"CT", head.EXPLICIT),
    "an empty part of the first of two names": element("PatientName", b"A^B=\\C^D=E", head.EXPLICIT),
    "an empty part of each name": element("PatientName", b"A^B=\\C^D=\\E== ", head.EXPLICIT),
    "an empty part behind a broken escape": element("SpecificCharacterSet", b"\\ISO 2022 IR 87", head.EXPLICIT)
    + element("PatientName", b"Test^Name=\\$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", head.EXPLICIT),
}
"""Bytes that the gateway and pydicom read differently, and no standard says how."""


@pytest.mark.parametrize("what", READ_OTHERWISE)
def test_input_that_no_standard_covers_is_no_difference(what: str) -> None:
    head.one_input(b"\0" + READ_OTHERWISE[what])


@pytest.mark.parametrize("where", [*UNREADABLE, "nothing behind"])
@pytest.mark.parametrize("keyword", [keyword for keyword in TWICE if keyword != "SpecificCharacterSet"])
def test_a_value_that_the_gateway_loses_is_noticed(monkeypatch: pytest.MonkeyPatch, keyword: str, where: str) -> None:
    begin = element(keyword, TWICE[keyword][0], head.EXPLICIT)
    behind = UNREADABLE[where](head.EXPLICIT, lambda length=None: b"") if where != "nothing behind" else b""
    head.one_input(b"\0" + begin + behind)
    monkeypatch.setattr(head, "read_head", lambda read, syntax, keywords: read_head(lambda offset, size: b"", syntax, keywords))
    monkeypatch.setattr(head, "peek_head", lambda beginning, syntax, keywords: None)
    with pytest.raises(AssertionError, match=keyword):
        head.one_input(b"\0" + begin + behind)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_atheris_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python")
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--seed", str(SEED), "--crashes", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
