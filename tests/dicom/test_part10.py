"""Where a Part 10 file's data set begins, whatever its File Meta Information looks like (PS3.10 §7.1)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dicom import part10
from gateway.dicom.part10 import CutOff, FileMeta, encode_meta, read_meta
from gateway.dicom.sniff import DicomFile, NoInstance, sniff
from tests.support.meta import (
    CT,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    PREAMBLE,
    SEQUENCE_END,
    data_set,
    explicit,
    implicit,
    meta,
    uid,
)

EXPLICIT_DATA, IMPLICIT_DATA = data_set(EXPLICIT), data_set(IMPLICIT)
UNDEFINED = ITEM + explicit(0x00080100, b"SH", b"AB") + ITEM_END + SEQUENCE_END
NESTED = ITEM + explicit(0x00080100, b"SQ", UNDEFINED, undefined=True) + ITEM_END + SEQUENCE_END
IN_IMPLICIT = implicit(0x00020002, CT.encode()) + implicit(0x00020003, b"1.2.3") + implicit(0x00020010, EXPLICIT.encode())


def sniffed(file: bytes) -> DicomFile | NoInstance:
    return sniff(lambda offset, size: file[offset : offset + size], len(file))


def read(file: bytes, begin: int = len(PREAMBLE)) -> FileMeta:
    return read_meta(lambda offset, size: file[offset : offset + size], begin, len(file))


WHOLE = {
    "as it should be": (meta(), EXPLICIT_DATA, EXPLICIT),
    "implicit, as it should be": (meta(IMPLICIT), IMPLICIT_DATA, IMPLICIT),
    "a group length that is too long": (meta(length=8), EXPLICIT_DATA, EXPLICIT),
    "a group length that ends within the data set": (meta(length=8 + len(CT) + 1), EXPLICIT_DATA, EXPLICIT),
    "a group length that is too short": (meta(length=-8), EXPLICIT_DATA, EXPLICIT),
    "a group length of nothing": (meta(length=-len(meta()) + 144), EXPLICIT_DATA, EXPLICIT),
    "a group length beyond the file": (meta(length=1 << 31), EXPLICIT_DATA, EXPLICIT),
    "a group length that lacks one element": (meta(length=-len(uid(0x00020012, "1.2.9"))), EXPLICIT_DATA, EXPLICIT),
    "that, before an implicit data set": (meta(IMPLICIT, length=-len(uid(0x00020012, "1.2.9"))), IMPLICIT_DATA, IMPLICIT),
    "no group length": (meta(length=None), EXPLICIT_DATA, EXPLICIT),
    "no group length, implicit": (meta(IMPLICIT, length=None), IMPLICIT_DATA, IMPLICIT),
    "a group length at its end": (meta(length=None) + meta()[132:144], EXPLICIT_DATA, EXPLICIT),
    "a sequence without length": (meta(extra=explicit(0x00020103, b"SQ", UNDEFINED, undefined=True)), EXPLICIT_DATA, EXPLICIT),
    "that, and no group length": (
        meta(extra=explicit(0x00020103, b"SQ", UNDEFINED, undefined=True), length=None),
        EXPLICIT_DATA,
        EXPLICIT,
    ),
    "a sequence in a sequence": (meta(extra=explicit(0x00020103, b"SQ", NESTED, undefined=True)), EXPLICIT_DATA, EXPLICIT),
    "a UN without length": (
        meta(extra=explicit(0x00020103, b"UN", ITEM + ITEM_END + SEQUENCE_END, undefined=True)),
        EXPLICIT_DATA,
        EXPLICIT,
    ),
    "a sequence with a length": (meta(extra=explicit(0x00020103, b"SQ", UNDEFINED[:-8])), EXPLICIT_DATA, EXPLICIT),
    "private information of 70,000 bytes": (meta(extra=explicit(0x00020102, b"OB", bytes(70_000))), EXPLICIT_DATA, EXPLICIT),
    "a VR of another time": (meta(extra=b"\x02\x00\x04\x01ZZ\x02\x00ab"), EXPLICIT_DATA, EXPLICIT),
    "elements out of order": (
        PREAMBLE + uid(0x00020010, EXPLICIT) + uid(0x00020003, "1.2.3") + uid(0x00020002, CT),
        EXPLICIT_DATA,
        EXPLICIT,
    ),
    "two transfer syntaxes": (meta(extra=uid(0x00020010, IMPLICIT)), EXPLICIT_DATA, EXPLICIT),
    "a second one behind the group length": (meta() + uid(0x00020010, IMPLICIT), EXPLICIT_DATA, EXPLICIT),
    "a second one, and no group length": (meta(length=None) + uid(0x00020010, IMPLICIT), EXPLICIT_DATA, EXPLICIT),
    "all of it in Implicit VR": (PREAMBLE + IN_IMPLICIT, EXPLICIT_DATA, EXPLICIT),
    "that, with a group length": (
        PREAMBLE + implicit(0x00020000, struct.pack("<L", len(IN_IMPLICIT))) + IN_IMPLICIT,
        EXPLICIT_DATA,
        EXPLICIT,
    ),
    "none, explicit": (PREAMBLE, EXPLICIT_DATA, EXPLICIT),
    "none, implicit": (PREAMBLE, IMPLICIT_DATA, IMPLICIT),
    "no preamble": (meta()[128:], EXPLICIT_DATA, EXPLICIT),
    "no preamble and no prefix": (meta()[132:], EXPLICIT_DATA, EXPLICIT),
    "an implicit data set that begins with an element of its group": (
        meta(IMPLICIT),
        implicit(0x00020003, b"1.2.3") + IMPLICIT_DATA,
        IMPLICIT,
    ),
    "with the transfer syntax": (meta(IMPLICIT), implicit(0x00020010, EXPLICIT.encode()) + IMPLICIT_DATA, IMPLICIT),
    "with two of them": (
        meta(IMPLICIT),
        implicit(0x00020002, CT.encode()) + implicit(0x00020003, b"1.2.3") + IMPLICIT_DATA,
        IMPLICIT,
    ),
    "with one, and no group length": (meta(IMPLICIT, length=None), implicit(0x00020003, b"1.2.3") + IMPLICIT_DATA, IMPLICIT),
    "with one, and a group length that is wrong": (
        meta(IMPLICIT, length=6),
        implicit(0x00020003, b"1.2.3") + IMPLICIT_DATA,
        IMPLICIT,
    ),
    "with one, and no File Meta Information": (PREAMBLE, implicit(0x00020003, b"1.2.3") + IMPLICIT_DATA, IMPLICIT),
}


@pytest.mark.parametrize(("head", "data", "syntax"), WHOLE.values(), ids=WHOLE)
def test_the_data_set_begins_where_it_does_in_the_syntax_that_it_has(head: bytes, data: bytes, syntax: str) -> None:
    found = sniffed(head + data)
    assert isinstance(found, DicomFile)
    assert (head + data)[found.offset :] == data
    identity = found.identity
    assert (identity.sop_class_uid, identity.sop_instance_uid, identity.transfer_syntax_uid) == (CT, "1.2.3", syntax)
    assert (identity.study_instance_uid, identity.series_instance_uid, found.unread) == ("1.2", "1.2.1", "")


@pytest.mark.parametrize("head", [head for head, _, _ in WHOLE.values() if head != PREAMBLE], ids=lambda head: str(len(head)))
def test_a_file_that_is_cut_within_its_meta_or_right_behind_it_is_none(head: bytes) -> None:
    for size in range(max(head.find(b"DICM"), 0) + 4, len(head) + 1):
        found = sniffed(head[:size])
        assert isinstance(found, NoInstance), size
        assert found.dicom or found.reason == "not DICOM", size


@pytest.mark.parametrize("size", range(len(meta()) - 30, len(meta()) + 60))
def test_a_file_that_is_cut_before_its_uids_ends_within_its_header(size: int) -> None:
    assert sniffed((meta() + EXPLICIT_DATA)[:size]) in (
        NoInstance("ends within its header", dicom=True),
        # Cut between two elements: nothing says that there was more.
        DicomFile(len(meta()), sniffed(meta() + data_set(EXPLICIT, [(0x00080016, b"UI", CT.encode())])).identity),  # type: ignore[union-attr]
    )


def test_what_looks_like_one_more_element_by_chance_is_data() -> None:
    begins = implicit(0x00020102, bytes(0x4956))
    assert begins[4:6] == b"VI"
    assert read(meta(IMPLICIT) + begins + IMPLICIT_DATA).end == len(meta(IMPLICIT))


def test_the_first_of_two_elements_counts() -> None:
    found = read(meta(extra=uid(0x00020003, "9.9") + uid(0x00020010, IMPLICIT)) + EXPLICIT_DATA)
    assert (found.text(part10.SOP_INSTANCE_UID), found.text(part10.TRANSFER_SYNTAX_UID)) == ("1.2.3", EXPLICIT)
    assert not found.clean


def test_only_what_no_reader_takes_for_anything_else_is_clean() -> None:
    clean = {name for name, (head, data, _) in WHOLE.items() if head[:132] == PREAMBLE and read(head + data).clean}
    assert clean == {
        "as it should be",
        "implicit, as it should be",
        "a sequence without length",
        "a sequence in a sequence",
        "a UN without length",
        "a sequence with a length",
        "private information of 70,000 bytes",
        "a VR of another time",
        "an implicit data set that begins with an element of its group",
        "with the transfer syntax",
        "with two of them",
    }


def test_no_file_makes_the_reader_take_memory() -> None:
    huge = meta(extra=explicit(0x00020102, b"OB", b"")[:8] + struct.pack("<L", 0xFFFFFFF0), length=None)
    asked = 0

    def reader(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        return (huge + bytes(size))[offset : offset + size] if offset < len(huge) else bytes(size)

    read_meta(reader, len(PREAMBLE), 1 << 40)
    assert asked < 100_000


@given(st.binary(max_size=200), st.integers(0, 1 << 33))
def test_any_bytes_are_read_within_the_file_or_reported_as_cut_off(data: bytes, size: int) -> None:
    file = PREAMBLE + data
    try:
        found = read(file)
    except CutOff:
        return
    assert len(PREAMBLE) <= found.begin <= found.end < len(file)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 0x10, 0x12, 0x13, 0x16, 0x100, 0x102]), st.binary(min_size=1, max_size=80))))
def test_what_is_written_is_read(elements: list[tuple[int, bytes]]) -> None:
    written = PREAMBLE + encode_meta(elements)
    found = read(written + EXPLICIT_DATA)
    assert (found.end, found.stated_end) == (len(written), len(written))
    first: dict[int, bytes] = {}
    for number, value in elements:
        first.setdefault(number, value)
    assert {number: found.values[number][: len(value)] for number, value in first.items()} == first
