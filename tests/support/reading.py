"""Data sets as pydicom reads them, held against each other element by element, in the bytes that they have."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

Elements = dict[int, Any]


def by_pydicom(file: bytes) -> tuple[str, Elements] | None:
    """Return the last Transfer Syntax UID and the data set of a Part 10 file, None where pydicom does not read it to its end.

    The UID is ``none`` where there is no such element.
    """
    stream = BytesIO(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = pydicom.dcmread(stream, force=True)
            return str(read.file_meta.get("TransferSyntaxUID", "none")), _elements(read)
    except Exception:  # noqa: BLE001 - whatever it is, pydicom does not read it
        return None


def _elements(dataset: Dataset) -> Elements:
    return {int(tag): _element(element) for tag, element in dataset._dict.items() if tag >> 16 != 2}


def _element(element: Any) -> Any:
    if isinstance(element, RawDataElement):
        return element.VR, element.length, element.value
    if element.VR == "SQ":
        return [_elements(item) for item in element.value]
    return element.VR, element.value
