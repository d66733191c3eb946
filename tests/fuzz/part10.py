"""Fuzz target: files as ``gateway send`` takes them. pydicom reads the same in the file and in ours, or we refuse the file.

An input is a file. Where it is recognised, its data set is put behind File Meta Information as a folder destination writes it, and
pydicom has to read the same elements in both. Where it is not, it must not be passed over in silence while pydicom finds an
instance in it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from gateway.core.domain import is_sop_class, is_uid
from gateway.dicom import part10
from gateway.dicom.sniff import MEDIA_STORAGE_DIRECTORY, DicomFile, sniff
from tests.support import data as real
from tests.support import meta
from tests.support.reading import Elements, by_pydicom

MAX_SEED_BYTES = 30_000
_UIDS = (0x00080016, 0x00080018)


def seeds() -> Iterator[bytes]:
    """Yield small real files, and made ones with every transfer syntax that shows."""
    for path in real.real_images():
        if path.stat().st_size <= MAX_SEED_BYTES:
            yield path.read_bytes()
    for syntax in (meta.EXPLICIT, meta.IMPLICIT):
        yield meta.meta(syntax) + meta.data_set(syntax)
        yield meta.meta(syntax, length=None) + meta.data_set(syntax)


def one_input(file: bytes) -> None:
    """Recognise a file, and hold what becomes of it against what pydicom reads."""
    found = sniff(lambda offset, size: file[offset : offset + size], len(file))
    theirs = by_pydicom(file)
    if not isinstance(found, DicomFile):
        assert found.dicom or found.reason == "a DICOMDIR" or not _is_instance(file, theirs), found
        return
    data_set = file[found.offset :]
    assert data_set
    identity = found.identity
    assert is_sop_class(identity.sop_class_uid)
    assert is_uid(identity.sop_instance_uid)
    head = part10.meta_of(identity.sop_class_uid, identity.sop_instance_uid, identity.transfer_syntax_uid)
    made = by_pydicom(part10.PREAMBLE + head + data_set)
    if theirs is None or not theirs[1]:
        return
    if theirs[0] != identity.transfer_syntax_uid and not (theirs[0] == "none" and data_set[:2] in (b"\x08\0", b"\0\x08")):
        # Of two transfer syntaxes pydicom takes the last, also one in the data set. Without one it guesses by the first group.
        return
    assert made is not None
    assert made[1] == theirs[1], _first_difference(made[1], theirs[1])


def _is_instance(file: bytes, theirs: tuple[str, Elements] | None) -> bool:
    """Tell whether pydicom finds an instance in a file that begins as one."""
    if theirs is None or file[128:132] != b"DICM":
        return False
    values = [theirs[1].get(tag) for tag in _UIDS]
    if any(not isinstance(value, tuple) or not isinstance(value[-1], bytes) for value in values):
        return False
    sop_class, instance = (value[-1].decode("latin-1").strip("\0 ") for value in values if value is not None)
    return is_sop_class(sop_class) and is_uid(instance) and sop_class != MEDIA_STORAGE_DIRECTORY


def _first_difference(ours: Elements, theirs: Elements) -> str:
    tag = next(tag for tag in sorted({*ours, *theirs}) if ours.get(tag) != theirs.get(tag))
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}): {tag in ours} here, {tag in theirs} there"


def mutate(file: bytes, chance: random.Random) -> bytes:
    """Change the File Meta Information, what follows on it, or where the file ends."""
    begin = len(part10.PREAMBLE)
    if file[128:132] != b"DICM":
        return _cut(file, chance)
    try:
        found = part10.read_meta(lambda offset, size: file[offset : offset + size], begin, len(file))
    except part10.CutOff:
        return _cut(file, chance)
    elements = list(_elements_of(file[begin : found.end]))
    data_set = file[found.end :]
    for _ in range(chance.choice((1, 1, 2, 3))):
        elements, data_set = chance.choice(_CHANGES)(elements, data_set, chance)
    if chance.random() < 0.6:
        elements = _with_length(elements, chance)
    changed = file[:begin] + b"".join(elements) + data_set
    return _cut(changed, chance) if chance.random() < 0.2 else changed


def _elements_of(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 8 <= len(data):
        vr, length = struct.unpack_from("<2sH", data, position + 4)
        size = 8 + length
        if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            size = 12 + int.from_bytes(data[position + 8 : position + 12], "little")
        yield data[position : position + size]
        position += size


def _with_length(elements: list[bytes], chance: random.Random) -> list[bytes]:
    """Give the elements a group length that is right, or nearly."""
    rest = [element for element in elements if element[:4] != b"\x02\0\0\0"]
    size = sum(map(len, rest)) + chance.choice((0, 0, 0, 0, 2, 8, -8, 26, 1 << 20))
    return [part10.group_length(size & 0xFFFFFFFF), *rest]


def _cut(file: bytes, chance: random.Random) -> bytes:
    return file[: chance.randrange(len(file) + 1)]


def _swap(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    return chance.sample(elements, len(elements)), data_set


def _drop(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    return [element for element in elements if chance.random() < 0.8], data_set


def _again(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    return elements + chance.sample(elements, min(len(elements), 1)), data_set


def _odd(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    item = chance.choice((b"", meta.explicit(0x00080100, b"SH", b"AB"))) + meta.ITEM_END
    odd = chance.choice(
        (
            meta.explicit(0x00020103, b"SQ", meta.ITEM + item + meta.SEQUENCE_END, undefined=True),
            meta.explicit(0x00020103, b"UN", meta.ITEM + meta.ITEM_END + meta.SEQUENCE_END, undefined=True),
            meta.explicit(0x00020102, b"OB", bytes(chance.choice((0, 2, 300)))),
            meta.uid(0x00020010, chance.choice((meta.EXPLICIT, meta.IMPLICIT))),
            meta.uid(0x00020003, "1.2.an odd one"),
        )
    )
    place = chance.randrange(len(elements) + 1)
    return [*elements[:place], odd, *elements[place:]], data_set


def _before_data(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    """Put an element of group 0002 at the head of the data set."""
    value = chance.choice((b"1.2.3\0", meta.IMPLICIT.encode(), b""))
    tag = chance.choice((0x00020003, 0x00020010, 0x00020102))
    explicit = data_set[4:6].isalpha() if chance.random() < 0.8 else chance.random() < 0.5
    return elements, (meta.explicit(tag, b"UI", value) if explicit else meta.implicit(tag, value)) + data_set


def _noise(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    if not elements:
        return elements, data_set
    place = chance.randrange(len(elements))
    changed = bytearray(elements[place])
    changed[chance.randrange(len(changed))] = chance.choice((0, 0x41, 0xFF, chance.randrange(256)))
    return [*elements[:place], bytes(changed), *elements[place + 1 :]], data_set


def _implicit(elements: list[bytes], data_set: bytes, chance: random.Random) -> tuple[list[bytes], bytes]:
    """Write the File Meta Information in Implicit VR, as some do."""
    made = []
    for element in elements:
        tag, value = int.from_bytes(element[2:4], "little") | 0x00020000, element[12 if element[4:6] == b"OB" else 8 :]
        made.append(meta.implicit(tag, value))
    return made, data_set


_CHANGES = (_swap, _drop, _again, _odd, _odd, _before_data, _before_data, _noise, _implicit)
