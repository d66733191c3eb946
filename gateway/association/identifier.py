"""Identifiers and other small data sets between pydicom and the wire. Pure; character sets are pydicom's affair.

Values stay as they came until someone asks for them: an element that a peer filled in wrongly costs only those who need it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

from gateway.errors import ProtocolError

_UNREADABLE = (AttributeError, BytesLengthException, EOFError, InvalidDicomError, KeyError, NotImplementedError, OSError, TypeError)
"""What pydicom raises for bytes that are no data set; the rest of it is in `readable`."""


def encode_identifier(identifier: Dataset, transfer_syntax: str) -> bytes:
    """Return `identifier` in `transfer_syntax`, one of the two uncompressed little endian ones (PS3.5 §A.1, §A.2)."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    write_dataset(buffer, identifier)
    return buffer.getvalue()


def decode_identifier(data: bytes, transfer_syntax: str) -> Dataset:
    """Return the data set that `data` is in `transfer_syntax`.

    Raises:
        ProtocolError: the bytes are no data set. The message says nothing of what is in them.
    """
    with readable():
        return read_dataset(BytesIO(data), is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian, is_little_endian=True)


@contextmanager
def readable() -> Iterator[None]:
    """Have what pydicom raises for a peer's data set, or for a value in it, leave as ProtocolError."""
    try:
        yield
    except (*_UNREADABLE, ValueError, struct.error) as error:
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
