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

from gateway.dicom import elements, inflating
from gateway.dicom.elements import CUT, CUT_BEHIND, TOO_MANY, Reader
from gateway.dicom.head import DataSetHead, peek_head, read_head
from gateway.dicom.inflating import ENDLESS, Inflating
from gateway.dicom.syntaxes import DEFLATED, EXPLICIT_BIG, known
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
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
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
def test_the_beginning_is_enough_or_says_how_far_it_goes(syntax: str) -> None:
    keywords = frozenset({"StudyDescription", "Rows"})
    data = encoded(example(), syntax) + element(0x7FE00010, "OW", bytes(100))
    whole = read_head(reader(data), syntax, keywords)
    enough = []
    for size in range(len(data) + 1):
        peeked = peek_head(memoryview(data)[:size], syntax, keywords)
        if peeked is not None and peeked.behind is not None:
            # Enough for a data set that ends there.
            assert peeked == read_head(reader(data[: peeked.behind]), syntax, keywords)
        assert peeked is None or peeked.behind is not None or peeked == whole
        enough.append(peeked is not None and peeked.behind is None)
    assert enough == sorted(enough)
    assert enough[len(data) - 80]


def test_of_what_is_deflated_the_beginning_says_nothing() -> None:
    assert peek_head(memoryview(data_set("1.2")), DEFLATED, frozenset()) is None


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
def test_a_sequence_without_length_is_passed_over_in_any_item_encoding(vr: bytes, inner: bytes) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0" + bytes(4)
    sequence = b"\x08\x00\x10\x11" + vr + b"\0\0\xff\xff\xff\xff" + item * 2 + b"\xfe\xff\xdd\xe0" + bytes(4)
    assert head(element(0x00080018, "UI", b"1.2.3") + sequence + STUDY).study_instance_uid == "1.2"


def test_a_delimiter_that_ends_nothing_is_passed_over() -> None:
    item, item_end, end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)
    sequence = b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + item + end + item_end + item_end + end
    assert head(element(0x00080018, "UI", b"1.2.3") + sequence + STUDY).study_instance_uid == "1.2"


@pytest.mark.parametrize("none", [b"1.2\\1.3", b"1.2.*", b"1.2.?", b"1.2\n3", b"1.2\x003", b"1.2\x9b3", b"1" * 257])
def test_a_uid_that_cannot_be_carried_is_left_out_and_named(none: bytes) -> None:
    found = head(element(0x00080018, "UI", b"1.2.3") + element(0x0020000D, "UI", none) + element(0x0020000E, "UI", b"1.2"))
    assert (found.study_instance_uid, found.series_instance_uid) == ("", "1.2")
    assert found.unread.startswith("Study Instance UID with control characters")


@pytest.mark.parametrize(
    "odd", ["1.2.abc", "1.2.ABC-def_7", "1" * 65, "2.25." + "9" * 250, "1.2 3.4", "a/b:c", "..", "\xe9t\xe9", "<&>'\""]
)
def test_a_uid_that_breaks_the_rules_is_carried_as_it_is(odd: str) -> None:
    found = head(element(0x0020000D, "UI", odd.encode("latin-1")) + element(0x0020000E, "UI", odd.encode("latin-1") + b" "))
    assert (found.study_instance_uid, found.series_instance_uid) == (odd, odd)


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


def packed(*parts: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return b"".join(map(packer.compress, parts)) + packer.flush()


DEFLATING = [syntax.uid for syntax in known() if syntax.deflated]


@pytest.mark.parametrize("syntax", DEFLATING)
def test_a_deflated_data_set_is_read(syntax: str) -> None:
    assert head(packed(encoded(example(), EXPLICIT_LITTLE)), "Rows", syntax=syntax).study_instance_uid == "1.2"


def test_every_deflated_syntax_of_the_standard_is_known_as_one() -> None:
    assert DEFLATING == [DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"]


def test_elements_far_into_a_deflated_data_set_need_little_memory() -> None:
    far = element(0x00080018, "UI", b"1.2.3") + struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 100 << 20)
    inflating = Inflating(reader(packed(far, *(bytes(1 << 20) for _ in range(100)), STUDY, element(0x0020000E, "UI", b"1.2.1"))))
    kept = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal kept
        data = inflating(offset, size)
        kept = max(kept, len(inflating._kept))
        return data

    assert head_of(read).study_instance_uid == "1.2"
    assert kept < 512 * 1024


def head_of(read: Reader) -> DataSetHead:
    return read_head(read, EXPLICIT_LITTLE, ())


def test_a_deflate_bomb_costs_a_bounded_amount_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflating, "MAX_INFLATED_BYTES", 8 << 20)
    bomb = packed(struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 400 << 20), *(bytes(1 << 20) for _ in range(400)))
    assert len(bomb) < 500_000
    found = head(bomb, syntax=DEFLATED)
    assert (found.study_instance_uid, found.unread) == ("", f"more than {8 << 20} bytes, inflated, stand before what is looked for")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no deflated stream at all", "it is not deflated as its transfer syntax says"),
        (packed(encoded(example(), EXPLICIT_LITTLE))[:-20], ENDLESS),
        (b"", ENDLESS),
    ],
)
def test_a_deflated_stream_that_ends_badly_is_said(data: bytes, reason: str) -> None:
    found = head(data, syntax=DEFLATED)
    assert (found.series_instance_uid, found.unread) == ("", reason)


_ITEM, _ITEM_ENDS, _SEQUENCE_ENDS = (
    struct.pack("<HHL", 0xFFFE, *rest) for rest in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
)
_REFERENCE = element(0x00081150, "UI", b"1.2.840.10008.5.1.4.1.1.2") + element(0x00081155, "UI", b"1.2.3.4.5.6.7.8.9")


@pytest.mark.parametrize("undefined", [False, True])
def test_a_sequence_of_any_size_is_passed_over(undefined: bool) -> None:
    items = (_ITEM + _REFERENCE + _ITEM_ENDS) * 36_000
    length, end = (0xFFFFFFFF, _SEQUENCE_ENDS) if undefined else (len(items), b"")
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, length) + items + end
    found = head(element(0x00080018, "UI", b"1.2.3") + sequence + STUDY)
    assert (found.study_instance_uid, found.unread) == ("1.2", "")


UIDS = {
    0x00080016: ("sop_class_uid", b"1.2.840.10008.5.1.4.1.1.2"),
    0x00080018: ("sop_instance_uid", b"1.2.3"),
    0x0020000D: ("study_instance_uid", b"1.2"),
    0x0020000E: ("series_instance_uid", b"1.2.1"),
}


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT, EXPLICIT_BIG])
@given(order=st.permutations(range(12)), pixels=st.booleans())
def test_the_order_of_the_elements_hides_nothing(syntax: str, order: list[int], pixels: bool) -> None:
    others = {0x00080060: (b"CS", b"CT"), 0x00100010: (b"PN", b"A^B "), 0x00280004: (b"CS", b"MONOCHROME2 ")}
    others |= {0x00280010: (b"US", bytes(2)), 0x00081140: (b"SQ", b""), 0x00204000: (b"LT", b"text"), 0x00400275: (b"SQ", b"")}
    others |= {0x7FE00010: (b"OW", bytes(40))} if pixels else {0x00880140: (b"UI", b"1.9")}
    made = [*((tag, b"UI", value + bytes(len(value) % 2)) for tag, (_, value) in UIDS.items())]
    made += [(tag, vr, value) for tag, (vr, value) in others.items()]
    data = b"".join(_encode(*made[place], syntax) for place in order)
    found = head(data, "Modality", syntax=syntax)
    assert {name: getattr(found, name).encode() for name, _ in UIDS.values()} == dict(UIDS.values())
    assert (found.values, found.unread) == ({"Modality": "CT"}, "")


def _encode(tag: int, vr: bytes, value: bytes, syntax: str) -> bytes:
    order = ">" if syntax == EXPLICIT_BIG else "<"
    if syntax == IMPLICIT:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in elements.LONG_VRS:
        return struct.pack(f"{order}HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def test_a_sorted_data_set_with_all_that_is_wanted_is_read_no_further() -> None:
    data = b"".join(element(tag, "UI", value) for tag, (_, value) in UIDS.items()) + element(0x00280010, "US", b"\0\2")
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(offset)
        return (data + element(0x7FE00010, "OW", bytes(100)))[offset : offset + size]

    assert head_of(read).series_instance_uid == "1.2.1"
    assert asked == [0]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_data_set_that_is_cut_within_its_head_says_so(cut: int) -> None:
    whole = element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2") + element(0x00080018, "UI", b"1.2.3") + STUDY
    ends = {len(whole) - len(STUDY), len(whole) - len(STUDY) - len(element(0x00080018, "UI", b"1.2.3"))}
    found = head(whole[:-cut])
    assert found.unread == ("" if len(whole) - cut in ends else CUT)


def test_a_data_set_that_is_cut_behind_its_head_says_so() -> None:
    assert head(STUDY + element(0x7FE00010, "OW", bytes(100))[:-1]).unread == CUT_BEHIND
    assert head(STUDY + element(0x7FE00010, "OW", bytes(100))).unread == ""


@pytest.mark.parametrize(
    "endless",
    [
        b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50,
        element(0x00090001, "LO", b""),
        b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff",
    ],
)
def test_a_data_set_without_end_is_given_up_and_that_is_said(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "MAX_HEADERS", 20_000)
    asked = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        shift = offset % len(endless)
        return (endless * (size // len(endless) + 2))[shift : shift + size]

    assert read_head(read, EXPLICIT_LITTLE, ("Modality",)).unread == TOO_MANY
    assert asked <= 1024 * 20_000 + 128 * 1024


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for syntax in (EXPLICIT_LITTLE, IMPLICIT, EXPLICIT_BIG, DEFLATED):
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
