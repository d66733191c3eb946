import struct
import zlib

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from gateway.intake import elements
from gateway.intake.attributes import DataSetHead, peek_head, read_head
from gateway.intake.elements import BUDGET_BYTES, DEFLATED_EXPLICIT_LITTLE, EXPLICIT_BIG, MAX_INFLATED_BYTES, Reader
from tests.support import data as real
from tests.support.storing import EXPLICIT_LITTLE, data_set, element, part10_files

IMPLICIT = "1.2.840.10008.1.2"


def reader(data: bytes) -> Reader:
    return lambda offset, size: data[offset : offset + size]


def head(data: bytes, *keywords: str, syntax: str = EXPLICIT_LITTLE) -> DataSetHead:
    return read_head(reader(data), syntax, keywords)


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == IMPLICIT
    buffer.is_little_endian = syntax != EXPLICIT_BIG
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def example() -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPInstanceUID = "1.2.3"
    inner = Dataset()
    inner.StudyInstanceUID = "9.9.9"
    dataset.ReferencedStudySequence = Sequence([inner, inner])
    dataset.ReferencedStudySequence.is_undefined_length = True
    for item in dataset.ReferencedStudySequence:
        item.is_undefined_length_sequence_item = True
    dataset.StudyDescription = "Schädel\u3000頭 "
    dataset.StudyInstanceUID = "1.2"
    dataset.SeriesInstanceUID = "1.2.1"
    dataset.InstanceNumber = "7"
    dataset.Rows = 512
    return dataset


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT, EXPLICIT_BIG])
def test_every_encoding_is_read_past_sequences_without_length(syntax: str) -> None:
    found = head(encoded(example(), syntax), "StudyDescription", "ImageType", "Rows", "InstanceNumber", "Modality", syntax=syntax)
    assert (found.sop_instance_uid, found.study_instance_uid, found.series_instance_uid) == ("1.2.3", "1.2", "1.2.1")
    assert found.values == {
        "StudyDescription": "Schädel\u3000頭",
        "ImageType": "ORIGINAL\\PRIMARY",
        "Rows": "512",
        "InstanceNumber": "7",
    }


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT, EXPLICIT_BIG])
def test_the_beginning_is_enough_or_nothing_is_said_of_it(syntax: str) -> None:
    keywords = frozenset({"StudyDescription", "Rows"})
    data = encoded(example(), syntax) + element(0x7FE00010, "OW", bytes(100))
    whole = read_head(reader(data), syntax, keywords)
    peeked = [peek_head(memoryview(data)[:size], syntax, keywords) for size in range(len(data) + 1)]
    assert all(head in (None, whole) for head in peeked)
    enough = [head is not None for head in peeked]
    assert enough == sorted(enough)
    assert enough[len(data) - 80]


def test_of_what_is_deflated_the_beginning_says_nothing() -> None:
    assert peek_head(memoryview(data_set("1.2")), DEFLATED_EXPLICIT_LITTLE, frozenset()) is None


def test_an_encoding_that_is_labelled_wrongly_is_read_all_the_same() -> None:
    assert head(encoded(example(), IMPLICIT), syntax=EXPLICIT_LITTLE).study_instance_uid == "1.2"
    assert head(encoded(example(), EXPLICIT_LITTLE), syntax=IMPLICIT).study_instance_uid == "1.2"


@pytest.mark.parametrize(
    ("terms", "codec"), [(b"ISO_IR 100", "latin-1"), (b"ISO_IR 144", "iso8859-5"), (b"GB18030", "gb18030"), (b"", "ascii")]
)
def test_text_is_decoded_by_its_character_set(terms: bytes, codec: str) -> None:
    text = {"latin-1": "Schädel", "iso8859-5": "Череп", "gb18030": "头部"}.get(codec, "skull")
    data = element(0x00080005, "CS", terms) + element(0x00081030, "LO", text.encode(codec))
    assert head(data, "StudyDescription").values == {"StudyDescription": text}


def test_code_extensions_are_followed() -> None:
    text = b"\x1b$B;3ED\x1b(B"
    data = element(0x00080005, "CS", b"\\ISO 2022 IR 87") + element(0x00081030, "LO", text)
    assert head(data, "StudyDescription").values == {"StudyDescription": "山田"}


def test_code_extensions_that_were_not_declared_are_followed() -> None:
    data = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00081030, "LO", b"M\xfcller\x1b(B ")
    assert head(data, "StudyDescription").values == {"StudyDescription": "Müller"}


def test_a_backslash_in_long_text_separates_nothing() -> None:
    data = element(0x00080081, "ST", b"A street \\ a town ")
    assert head(data, "InstitutionAddress").values == {"InstitutionAddress": "A street \\ a town"}


STUDY = element(0x0020000D, "UI", b"1.2")


@pytest.mark.parametrize(
    "odd",
    [
        b"\x09\x00\x01\x10ZZ\x02\x00ab",
        b"\x09\x00\x01\x10\x02\x00\x00\x00ab",
        b"\x09\x00\x01\x10??\x00\x00" + bytes(0x3F3F),
    ],
    ids=["a VR of another time", "no VR", "a VR that is none"],
)
def test_an_element_with_an_odd_vr_hides_nothing_behind_it(odd: bytes) -> None:
    assert head(element(0x00080018, "UI", b"1.2.3") + odd + STUDY).study_instance_uid == "1.2"


def test_a_vr_of_another_time_is_a_vr_in_the_first_element_too() -> None:
    assert head(b"\x08\x00\x01\x00ZZ\x02\x00ab" + STUDY, syntax=IMPLICIT).study_instance_uid == "1.2"


ITEMS = {"implicit": b"\x20\x00\x0d\x00\x04\x00\x00\x009.9\x00", "explicit": element(0x0020000D, "UI", b"9.9"), "empty": b""}


@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
@pytest.mark.parametrize("inner", ITEMS.values(), ids=ITEMS)
def test_a_sequence_without_length_is_passed_over_whatever_its_items_are_encoded_in(vr: bytes, inner: bytes) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0" + bytes(4)
    sequence = b"\x08\x00\x10\x11" + vr + b"\0\0\xff\xff\xff\xff" + item * 2 + b"\xfe\xff\xdd\xe0" + bytes(4)
    assert head(element(0x00080018, "UI", b"1.2.3") + sequence + STUDY).study_instance_uid == "1.2"


def test_a_delimiter_that_ends_nothing_is_passed_over() -> None:
    item, item_end, end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
    sequence = b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + item + end + item_end + item_end + end
    assert head(element(0x00080018, "UI", b"1.2.3") + sequence + STUDY).study_instance_uid == "1.2"


def test_a_uid_that_is_none_is_not_recorded() -> None:
    data = element(0x0020000D, "UI", b"Muller^Hans") + element(0x0020000E, "UI", b"1.2")
    assert (head(data).study_instance_uid, head(data).series_instance_uid) == ("", "1.2")


def test_large_values_are_skipped_not_read() -> None:
    size = 1 << 40
    before = element(0x00080018, "UI", b"1.2") + struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFF0)
    after = element(0x0020000D, "UI", b"1.2.3")
    start = len(before) + 0xFFFFFFF0
    asked = 0

    def read(offset: int, count: int) -> bytes:
        nonlocal asked
        asked += count
        if offset < len(before):
            return (before + bytes(count))[offset : offset + count]
        assert offset < size
        return after[offset - start : offset - start + count]

    assert read_head(read, EXPLICIT_LITTLE, ()).study_instance_uid == "1.2.3"
    assert asked < 200_000


def test_a_deflated_data_set_is_read() -> None:
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(encoded(example(), EXPLICIT_LITTLE)) + packer.flush()
    assert head(data, "Rows", syntax=DEFLATED_EXPLICIT_LITTLE).study_instance_uid == "1.2"


def test_a_deflate_bomb_costs_a_bounded_amount() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(400)) + packer.flush()
    assert len(bomb) < 500_000
    assert len(elements.inflated(reader(bomb), DEFLATED_EXPLICIT_LITTLE)(0, 1 << 40)) <= MAX_INFLATED_BYTES
    assert head(bomb, syntax=DEFLATED_EXPLICIT_LITTLE).study_instance_uid == ""


@pytest.mark.parametrize(
    "endless",
    [
        b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50,
        element(0x00090001, "LO", b""),
        b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff",
    ],
)
def test_no_data_set_makes_us_read_more_than_the_budget(endless: bytes) -> None:
    asked = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        shift = offset % len(endless)
        return (endless * (size // len(endless) + 2))[shift : shift + size]

    read_head(read, EXPLICIT_LITTLE, ("Modality",))
    assert asked <= BUDGET_BYTES


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for syntax in (EXPLICIT_LITTLE, IMPLICIT, EXPLICIT_BIG, DEFLATED_EXPLICIT_LITTLE):
        head(data, "Modality", "PatientName", "Rows", "StudyDate", syntax=syntax)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_no_damage_makes_it_raise(position: int, damage: bytes) -> None:
    data = data_set("1.2.3")
    head(data[:position] + damage + data[position + len(damage) :], "Modality", "PatientName")


def test_real_files_are_read_as_pydicom_reads_them() -> None:
    keywords = ("Modality", "StudyDescription", "ImageType", "Rows", "BodyPartExamined", "Manufacturer", "InstanceNumber")
    for path, syntax, data in part10_files(real.real_files()):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found = head(data, *keywords, syntax=syntax)
        assert found.study_instance_uid == dataset.StudyInstanceUID, path
        assert found.sop_instance_uid == dataset.SOPInstanceUID, path
        for keyword in keywords:
            expected = dataset.get(keyword)
            if expected is None or isinstance(expected, bytes):
                continue
            values = [expected] if isinstance(expected, str | int) else list(expected)
            assert found.values.get(keyword, "") == "\\".join(str(value).strip() for value in values), (path, keyword)


def test_values_are_bounded() -> None:
    data = element(0x00081030, "LO", b"x" * 60000)
    assert len(head(data, "StudyDescription").values["StudyDescription"]) == elements.MAX_VALUE_BYTES


def test_an_unknown_keyword_has_no_value() -> None:
    assert head(data_set("1.2"), "NoSuchKeyword").values == {}
