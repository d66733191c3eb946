"""Fuzz target: the elements that routing needs, read from a data set's head by the gateway and by pydicom: equal, or both nothing.

The first byte of an input chooses the transfer syntax; the rest is the data set, which is deflated here where that is chosen.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
import pydicom.datadict
from pydicom import filereader
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _is_implicit_vr, data_element_generator
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian
from pydicom.valuerep import PersonName

from gateway.core.domain import is_uid
from gateway.dicom.elements import MAX_VALUE_BYTES
from gateway.dicom.head import DataSetHead, peek_head, read_head
from gateway.dicom.sniff import DicomFile, NoInstance, sniff
from tests.support import data as real
from tests.support.storing import part10_files

EXPLICIT, IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", str(ExplicitVRBigEndian), "1.2.840.10008.1.2.1.99"
SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED)
PREFIX_BYTES = 1
SEED_BYTES = 4000

KEYWORDS = (
    *("Modality", "StudyDescription", "PatientName", "InstanceNumber", "Rows", "ImageType", "StudyDate", "PixelSpacing"),
    *("InstitutionAddress", "TemporalPositionIndex", "RecommendedDisplayFrameRateInFloat", "LongCodeValue", "WindowCenter"),
    *("BitsAllocated", "TimezoneOffsetFromUTC", "ExposedArea", "PatientComments", "BodyPartExamined"),
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def seeds() -> Iterator[bytes]:
    """Yield the beginnings of real data sets, and a generated one with everything odd, in each transfer syntax."""
    for _, syntax, data in part10_files(real.real_files()):
        yield bytes([SYNTAXES.index(syntax) if syntax in SYNTAXES[:3] else 0]) + data[:SEED_BYTES]
    for position, syntax in enumerate(SYNTAXES):
        for undefined in (False, True):
            yield bytes([position]) + encoded(example(undefined=undefined), syntax)


def example(*, undefined: bool) -> Dataset:
    """Return a data set with nested sequences, private elements, several character sets and a value of each kind."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.ImageType, dataset.Modality, dataset.StudyDate = ["ORIGINAL", "PRIMARY"], "CT", "20240229"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
    inner = Dataset()
    inner.StudyInstanceUID, inner.StudyDescription = "9.9.9", "inner"
    inner.ReferencedSOPSequence = Sequence([Dataset()])
    dataset.ReferencedStudySequence = Sequence([inner, inner])
    for sequence in (dataset.ReferencedStudySequence, inner.ReferencedSOPSequence):
        sequence.is_undefined_length = undefined
        for item in sequence:
            item.is_undefined_length_sequence_item = undefined
    dataset.StudyDescription, dataset.PatientName = "Study", "Test^Name=山田^太郎"
    dataset.InstitutionAddress, dataset.PatientComments = "A street\r\na town", "none"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.InstanceNumber = "1.2", "1.2.1", "7"
    dataset.TemporalPositionIndex, dataset.RecommendedDisplayFrameRateInFloat = 3, 1.5
    dataset.Rows, dataset.PixelSpacing, dataset.WindowCenter = 512, ["0.5", "0.5"], "40"
    return dataset


def encoded(dataset: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def one_input(data: bytes) -> None:
    """Read a data set by both."""
    if not data:
        return
    syntax, data_set = SYNTAXES[data[0] % len(SYNTAXES)], data[1:]
    wire = _deflated(data_set) if syntax == DEFLATED else data_set
    head = read_head(lambda offset, size: wire[offset : offset + size], syntax, KEYWORDS)
    file = bytes(128) + b"DICM" + data_set
    assert isinstance(sniff(lambda offset, size: file[offset : offset + size], len(file)), DicomFile | NoInstance)
    peeked = peek_head(memoryview(wire), syntax, frozenset(KEYWORDS))
    assert peeked is None or peeked.behind not in (None, len(wire)) or peeked == head
    reading = by_pydicom(data_set, syntax)
    if reading.odd or _raw(reading.found, "SpecificCharacterSet").startswith(b" "):
        # Where it is odd, what the gateway and pydicom find behind it may be nonsense, of either kind. In front of a character set
        # pydicom does not remove the padding (PS3.5 §6.2, CS).
        return
    differences = list(_differences(head, reading, syntax))
    assert not differences, differences


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@dataclass
class Reading:
    """The reading of pydicom: the elements up to the last one that is wanted; `whole` where it could read as far as that, else
    `behind` is what it did not read, from the element on that it could not read whole.

    `odd` where a value that is no sequence has an undefined length, which only encapsulated pixel data may (PS3.5 §7.1): the
    gateway walks through its items, pydicom looks for the next delimiter. And where an item's length is not that of its elements:
    the gateway goes by the one, pydicom by the other. And where an element has the group of items, and is none of the three that
    there are (PS3.5 §7.5): the gateway takes it for one, without a VR, pydicom does not.
    """

    found: Dataset
    whole: bool = False
    odd: bool = False
    behind: bytes = b""

    def may_come_again(self, keyword: str, syntax: str) -> bool:
        """Tell whether the gateway may find another such element where pydicom does not read: the last one counts."""
        tag = pydicom.datadict.tag_for_keyword(keyword) or 0
        return struct.pack(">HH" if syntax == BIG else "<HH", tag >> 16, tag & 0xFFFF) in self.behind


def by_pydicom(data: bytes, syntax: str) -> Reading:
    """Read the data set `data`."""
    last = max(pydicom.datadict.tag_for_keyword(keyword) or 0 for keyword in (*KEYWORDS, *_UIDS))
    file, little = BytesIO(data), syntax != BIG
    order = "<" if little else ">"
    implicit = _is_implicit_vr(file, syntax == IMPLICIT, little, None, is_sequence=False)
    file.seek(0)
    reading = Reading(Dataset())
    elements: dict[BaseTag, Any] = reading.found._dict
    stopped: list[int] = []
    end = 0
    order_of_tags: list[int] = [0]

    def stop(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        """Stop where the gateway does: behind the last tag, where all came in order and nothing is missing."""
        in_order = order_of_tags == sorted(order_of_tags)
        order_of_tags.append(min(tag, last + 1))
        if tag > last and in_order and all(_has(elements, keyword) for keyword in (*KEYWORDS, *_UIDS)):
            stopped.append(tag)
        return bool(stopped)

    try:
        with _any_character_set():
            for element in data_element_generator(file, implicit, little, stop_when=stop):
                if isinstance(element, RawDataElement) and len(element.value or b"") < element.length != 0xFFFFFFFF:
                    # The data set ends within it. pydicom takes what is there for the value, the gateway does so only where that
                    # is as much as it reads of any value.
                    reading.behind = data[end:]
                    return reading
                reading.odd = reading.odd or _is_odd(element, data, order)
                if isinstance(element, RawDataElement) or element.tag not in elements:
                    elements[element.tag] = element
                end = file.tell()
    except Exception:  # noqa: BLE001 - whatever it is, pydicom reads no further
        reading.behind = data[end:]
        return reading
    # It ends at a stray delimiter, too, which the gateway passes over.
    reading.whole = bool(stopped) or file.tell() == len(data)
    reading.behind = b"" if reading.whole else data[end:]
    return reading


def _has(elements: dict[BaseTag, Any], keyword: str) -> bool:
    """Tell whether an element is there that has a length."""
    element = elements.get(BaseTag(pydicom.datadict.tag_for_keyword(keyword) or 0))
    return element is not None and not getattr(element.value, "is_undefined_length", False)


@contextmanager
def _any_character_set() -> Iterator[None]:
    """Let pydicom read on behind a Specific Character Set that is none: it would give the data set up."""
    convert = filereader.convert_encodings

    def tolerant(terms: Any) -> Any:
        try:
            return convert(terms)
        except (LookupError, ValueError):
            return convert("")

    filereader.convert_encodings = tolerant
    try:
        yield
    finally:
        filereader.convert_encodings = convert


def _is_odd(element: RawDataElement | DataElement, data: bytes, order: str) -> bool:
    if element.tag.group == 0xFFFE and element.tag.element not in (0xE000, 0xE00D, 0xE0DD):
        return True
    if isinstance(element, RawDataElement):
        return element.length == 0xFFFFFFFF
    return any(
        _lies(item, data, order) or any(_is_odd(inner, data, order) for inner in item._dict.values()) for item in element.value
    )


def _lies(item: Dataset, data: bytes, order: str) -> bool:
    """Tell whether an item does not end where its length says, or is no item."""
    group, number, length = struct.unpack_from(f"{order}HHL", data, item.seq_item_tell)
    if (group, number) != (0xFFFE, 0xE000):
        return True
    begin = item.seq_item_tell + 8
    ends = [one.value_tell + one.length for one in item._dict.values() if isinstance(one, RawDataElement)]
    sequences = len(ends) < len(item._dict)
    return length != 0xFFFFFFFF and (begin + length > len(data) or (not sequences and max(ends, default=begin) != begin + length))


def _differences(head: DataSetHead, reading: Reading, syntax: str) -> Iterator[str]:
    dataset, whole = reading.found, reading.whole
    uids = (head.sop_class_uid, head.sop_instance_uid, head.study_instance_uid, head.series_instance_uid)
    for keyword, ours in zip(_UIDS, uids, strict=True):
        theirs = _raw(dataset, keyword).decode("latin-1").strip(" \0")
        theirs = theirs if is_uid(theirs) else ""
        if ours != theirs and (whole or (theirs and not reading.may_come_again(keyword, syntax))):
            yield f"{keyword}: {ours!r} here, {theirs!r} there"
    # Before pydicom is asked for anything: it makes a value of its own of it.
    character_sets = _raw(dataset, "SpecificCharacterSet")
    others = not whole and reading.may_come_again("SpecificCharacterSet", syntax)
    for keyword in KEYWORDS:
        value = _value(dataset, keyword, character_sets)
        if value is None or (others and value and dataset[keyword].VR in _TEXT_VRS):
            # pydicom has it in a form that says nothing, or cannot say what it is, or in another character set.
            continue
        if head.values.get(keyword, "") != value and (whole or (value and not reading.may_come_again(keyword, syntax))):
            yield f"{keyword}: {head.values.get(keyword)!r} here, {value!r} there"


def _raw(dataset: Dataset, keyword: str) -> bytes:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    value = getattr(dataset._dict.get(BaseTag(tag)), "value", None)
    return value[:MAX_VALUE_BYTES] if isinstance(value, bytes) else b""


def _value(dataset: Dataset, keyword: str, character_sets: bytes) -> str | None:
    """Return the value as text, several joined by backslashes; None where pydicom cannot or does not tell."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag not in dataset:
        return ""
    raw = _raw(dataset, keyword)
    if len(raw) >= MAX_VALUE_BYTES:
        return None
    try:
        value = dataset[keyword].value
    except Exception:  # noqa: BLE001 - pydicom cannot say what it is
        return None
    vr = dataset[keyword].VR
    if vr not in _BINARY_VRS and not _is_text(raw, character_sets if vr in _TEXT_VRS else None):
        return None
    values = list(value) if isinstance(value, MultiValue) else ["" if value is None else value]
    if vr in ("DS", "IS") and any(isinstance(one, str) and one for one in values):
        # pydicom could not make numbers of it, and tried other VRs.
        return None
    if any(not isinstance(one, str | int | float | PersonName) for one in values) or (
        vr == "PN" and re.search(rb"=[\0 ]*(\\|$)", raw)
    ):
        # Of each person's name pydicom drops what is empty at its end.
        return None
    return "\\".join(_text(one) for one in values)


_TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
_BINARY_VRS = ("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV")


def _is_text(raw: bytes, character_sets: bytes | None) -> bool:
    """Tell whether `raw` is ASCII, or text in `character_sets` that are known: of other bytes everyone makes something else."""
    raw = raw.rstrip(b"\0")
    if character_sets is None:
        return all(0x20 <= byte < 0x7F for byte in raw)
    if all(byte in b"\r\n" or 0x20 <= byte < 0x7F for byte in raw):
        return True
    terms = [term.strip(b" \0").decode("latin-1") for term in character_sets.split(b"\\")]
    if not all(term in python_encoding for term in terms) or (b"\x1b" in raw and len(terms) < 2):
        return False
    return all(byte in b"\r\n\x1b" or byte >= 0x20 for byte in raw) and (len(terms) > 1 or _decodes(raw, terms[0]))


def _decodes(raw: bytes, term: str) -> bool:
    """Tell whether `raw` is what a character set of several bytes a character allows; those of one allow all."""
    encoding = python_encoding[term]
    try:
        raw.decode(encoding if isinstance(encoding, str) else "latin-1")
    except UnicodeDecodeError:
        return False
    return True


def _text(value: Any) -> str:
    if type(value) is float:
        return f"{value:g}"
    original = getattr(value, "original_string", None)
    return (original if isinstance(original, str) else str(value)).strip(" \0")


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change elements of a data set, lengths staying true or not."""
    syntax, data_set = SYNTAXES[data[0] % len(SYNTAXES)] if data else EXPLICIT, data[1:]
    parts = list(_parts(data_set, syntax))
    if not parts:
        return data
    order = ">" if syntax == BIG else "<"
    for _ in range(chance.choice((1, 1, 2, 3))):
        chosen = chance.randrange(len(parts))
        parts[chosen : chosen + 1] = filter(None, chance.choice(_CHANGES)(parts[chosen], chance, order))
        if not parts:
            return data
    if chance.random() < 0.2:
        chance.shuffle(parts)
    return data[:1] + b"".join(parts)


def _parts(data: bytes, syntax: str) -> Iterator[bytes]:
    """Yield the elements of a data set at its top level, header and all, as pydicom finds them."""
    file, little = BytesIO(data), syntax != BIG
    implicit, begin = _is_implicit_vr(file, syntax == IMPLICIT, little, None, is_sequence=False), 0
    file.seek(0)
    elements = data_element_generator(file, implicit, little)
    while True:
        try:
            next(elements)
        except StopIteration:
            break
        except Exception:  # noqa: BLE001 - the rest is in one part
            break
        yield data[begin : file.tell()]
        begin = file.tell()
    if data[begin:]:
        yield data[begin:]


_VRS = (b"LO", b"UN", b"SQ", b"OB", b"US", b"UT", b"PN", b"UI", b"XX", b"\0\0", b"??", b"  ", b"ox", b"OV", b"SV", b"A\xff")


_VALUES = (b"", b"A", b"A\\B ", b" A ", b"\0", b"1.5", b"\xff" * 8, b"M\xfcller^A=B=C", b"\x1b$B;3ED\x1b(B")
_VALUES += (b"ISO_IR 100", b"ISO 2022 IR 87", b"ISO_IR 192")


def _new_vr(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    return [part[:4] + chance.choice(_VRS) + part[6:]]


def _undefined(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    """Make a sequence without length, or a UN, around an element."""
    item, end, behind = (struct.pack(f"{order}HHL", 0xFFFE, *rest) for rest in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0)))
    vr = chance.choice((b"SQ", b"UN", b"OB", b"LO"))
    implicit = chance.random() < 0.3
    head = part[:4] + (b"" if implicit else vr + b"\0\0") + b"\xff\xff\xff\xff"
    return [head + item + part + end + behind]


def _length(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    return [part[:6] + struct.pack(f"{order}H", chance.choice((0, 1, 2, min(len(part), 0xFFFF), 0xFFFF))) + part[8:]]


def _noise(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    changed = bytearray(part)
    for _ in range(chance.choice((1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.choice((0, 0x5C, 0x1B, 0x20, 0xFF, chance.randrange(256)))
    return [bytes(changed)]


def _group_length(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    (group,) = struct.unpack_from(f"{order}H", part.ljust(2, b"\0"))
    return [struct.pack(f"{order}HH2sHL", group, 0, b"UL", 4, chance.choice((0, 12, 0xFFFFFFFF))), part]


def _wanted(part: bytes, chance: random.Random, order: str) -> list[bytes]:
    """Add an element that is looked for, with any value."""
    tag = pydicom.datadict.tag_for_keyword(chance.choice((*KEYWORDS, *_UIDS, "SpecificCharacterSet")))
    assert tag is not None
    value = chance.choice(_VALUES)
    vr = chance.choice((pydicom.datadict.dictionary_VR(tag).encode()[:2], chance.choice(_VRS[:8])))
    long = vr in (b"UN", b"SQ", b"OB", b"UT", b"UC")
    length = struct.pack(f"{order}HL", 0, len(value)) if long else struct.pack(f"{order}H", len(value))
    return [part, struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr + length + value]


_CHANGES = (
    _new_vr,
    _undefined,
    _length,
    _noise,
    _group_length,
    _wanted,
    lambda part, chance, order: [],
    lambda part, chance, order: [part, part],
    lambda part, chance, order: [part[: chance.randrange(len(part) + 1)]],
)
