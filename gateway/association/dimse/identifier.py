"""Identifiers and other small data sets between pydicom and the wire. Pure; character sets are pydicom's affair.

Bytes come from strangers. The top level is read here, without recursion, every length held against what is there; pydicom is given
single elements, and only when someone asks for their value. So an element that a peer filled in wrongly costs only those who need
it. pydicom raises what its conversions happen to raise (`RecursionError`, `OverflowError`, `LookupError` of a codec…), so that
`readable` maps every exception.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_sequence
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian

from gateway.core.errors import GatewayError, ProtocolError
from gateway.dicom.elements import CHARACTER_SET, HEADERS, ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Window, is_vr, of_bytes

MAX_DEPTH = 8
"""Sequences within sequences that are read; what is nested deeper is left out. Nothing that is asked for has more than one."""


def encode_identifier(identifier: Dataset, transfer_syntax: str) -> bytes:
    """Return `identifier` in `transfer_syntax`, one of the two uncompressed little endian ones (PS3.5 §A.1, §A.2)."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    write_dataset(buffer, identifier)
    return buffer.getvalue()


def decode_identifier(data: bytes, transfer_syntax: str, wanted: Collection[int] | None = None) -> Dataset:
    """Return the data set that `data` is in `transfer_syntax`, of its top level only the tags in `wanted`, where that is given.

    A data set may end within an element behind all that is in `wanted`, which costs that element. A character set that nobody
    knows counts as the default one; a sequence that is nested too deeply is left out.

    Raises:
        ProtocolError: the bytes are no data set, or end within an element. The message says nothing of what is in them.
    """
    with readable():
        implicit = _is_implicit(data, transfer_syntax)
        elements = list(_elements(data, implicit, wanted))
        encoding = _encoding(next((data[begin:end] for tag, _, begin, end, _ in elements if tag == CHARACTER_SET), None))
        found: dict[BaseTag, DataElement | RawDataElement] = {}
        for tag, vr, begin, end, nested in elements:
            key = BaseTag(tag)
            if tag == CHARACTER_SET and encoding is None:
                continue
            if nested is None:
                found[key] = RawDataElement(key, vr, end - begin, data[begin:end] or None, begin, implicit, True)
            elif nested <= MAX_DEPTH:
                found[key] = DataElement(key, "SQ", _sequence(data[begin:end], implicit, encoding), is_undefined_length=True)
        dataset = Dataset(found)
        dataset.set_original_encoding(implicit, True, encoding or default_encoding)
        return dataset


@contextmanager
def readable() -> Iterator[None]:
    """Have whatever pydicom raises for a peer's data set, or for a value in it, leave as ProtocolError."""
    try:
        yield
    except GatewayError:
        raise
    except Exception as error:
        raise ProtocolError(f"a data set that cannot be read ({type(error).__name__})") from error


def uids(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the UIDs under `keyword`, of which there may be none, one (not a list then) or many.

    Raises:
        ProtocolError: the value cannot be read.
    """
    with readable():
        value = identifier.get(keyword) or ()
        values: Iterable[object] = (value,) if isinstance(value, str) else value
        return tuple(str(uid) for uid in values if uid)


def _is_implicit(data: bytes, transfer_syntax: str) -> bool:
    """Tell whether the first element has no VR; some peers write another encoding than was negotiated."""
    vr = data[4:6]
    if len(vr) < 2:
        return transfer_syntax == ImplicitVRLittleEndian
    return not is_vr(vr)


def _elements(
    data: bytes, implicit: bool, wanted: Collection[int] | None
) -> Iterator[tuple[int, str | None, int, int, int | None]]:
    """Yield tag, VR, where the value begins and ends, and for a value without length how deeply sequences are nested in it."""
    window, position, end = Window(of_bytes(data), data), 0, len(data)
    # Fewer bytes than a header are padding.
    while position + 8 <= end:
        tag, vr, position, length = _header(window, position, implicit)
        depth = None
        begin = position
        try:
            if length == UNDEFINED:
                position, depth = _behind(window, position, implicit)
            else:
                position += length
            if position > end:
                raise ProtocolError("a data set that cannot be read: it ends within an element")
        except ProtocolError:
            # Tags ascend (PS3.5 §7.1): nothing that is asked for is behind this one.
            if wanted and tag > max(wanted):
                return
            raise
        if wanted is None or tag in wanted or tag == CHARACTER_SET:
            yield tag, vr, begin, position, depth


def _header(window: Window, position: int, implicit: bool) -> tuple[int, str | None, int, int]:
    """Return tag, VR (None where it is implicit), where the value begins, and its length (PS3.5 §7.1)."""
    try:
        tag, vr, length, size = HEADERS[False, not implicit](window, position)
    except struct.error:
        raise ProtocolError("a data set that cannot be read: it ends within an element") from None
    return tag, vr.decode() or None, position + size, length


def _behind(window: Window, position: int, implicit: bool) -> tuple[int, int]:
    """Return the position behind a value without length that begins at `position`, and how deeply sequences are nested in it."""
    # Of each open sequence or item, by turns, where it ends; None where a delimiter says so.
    ends: list[int | None] = [None]
    deepest = 1
    while ends:
        end, in_item = ends[-1], len(ends) % 2 == 0
        if end is not None and position >= end:
            ends.pop()
            continue
        tag, _, position, length = _header(window, position, implicit or not in_item)
        if tag == (ITEM_END if in_item else SEQUENCE_END):
            ends.pop()
        elif not in_item or length == UNDEFINED:
            if not in_item and tag != ITEM:
                raise ProtocolError("a data set that cannot be read: a sequence holds no items")
            ends.append(None if length == UNDEFINED else position + length)
            deepest = max(deepest, (len(ends) + 1) // 2)
        else:
            position += length
    return position, deepest


def _sequence(value: bytes, implicit: bool, encoding: list[str] | None) -> Sequence:
    return read_sequence(BytesIO(value), implicit, True, UNDEFINED, encoding or default_encoding)


def _encoding(value: bytes | None) -> list[str] | None:
    """Return the Python encodings that a Specific Character Set names, None for the default one or one that nobody knows."""
    if value is None:
        return None
    terms = [term.strip() for term in value.decode("latin-1").rstrip("\0 ").split("\\")]
    try:
        encodings = list(convert_encodings(terms if len(terms) > 1 else terms[0]))
        for name in encodings:
            # Python has codecs that decode no text (bz2, hex): they would fail over each value.
            b" ".decode(name)
    except Exception:  # noqa: BLE001 - pydicom and Python's codecs raise several kinds; a character set is no reason to lose the rest
        return None
    return encodings
