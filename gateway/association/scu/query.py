"""C-FIND as its user sees it: identifiers out of keywords and values, and careful reading of what comes back (PS3.4 §C.4.1).

Answers are input from a stranger: values that cannot be read are none, and matches that contradict a key are passed over, since
some peers ignore keys that they do not know. Pure, but for the `Finder` that callers bring along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import pydicom.config
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from gateway.association.dimse.identifier import readable
from gateway.core.errors import ProtocolError, UsageError
from gateway.core.single_values import MAX_OTHERS, SingleValue

# Values come from strangers and are judged here; pydicom would quote those it finds odd, patients' names too, in warnings.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

RETURN_KEYS: Mapping[str, tuple[str, ...]] = {
    "STUDY": (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "StudyDate",
        "StudyTime",
        "StudyDescription",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    "SERIES": (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
    ),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}
"""The attributes that `gateway find` asks for at each level beside the keys that are given."""

AT_STUDY_LEVEL = {"Modality": "ModalitiesInStudy"}


class Finder(Protocol):
    """The part of an association that queries need."""

    def find(self, identifier: Dataset) -> Iterator[Dataset]:
        """Yield the matches of `identifier`; raises `DimseFailed` for a failure status."""


def identifier(level: str, keys: Mapping[str, str], wanted: Iterable[str] = ()) -> Dataset:
    """Return a C-FIND identifier: `keys` to match, `wanted` keywords to be returned (empty values).

    Raises:
        UsageError: a key is no keyword of a DICOM attribute that can be matched.

    """
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword in wanted:
        setattr(dataset, keyword, "")
    for keyword, value in keys.items():
        name = AT_STUDY_LEVEL.get(keyword, keyword) if level == "STUDY" else keyword
        if tag_for_keyword(name) is None or dictionary_VR(name).startswith(("O", "SQ", "UN")):
            raise UsageError(
                f"{keyword} is no keyword of a DICOM attribute to match by (for example PatientID, StudyDate, Modality)"
            )
        _set(dataset, name, keyword, value)
    if not all(value.isascii() for value in keys.values()):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def image_identifier(study: str, series: str, instance: str = "") -> Dataset:
    """Return the identifier of an instance, or of all that a series has, with the unique keys above it (PS3.4 §C.4.1.2.2.1)."""
    return identifier("IMAGE", {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": instance})


def _set(dataset: Dataset, name: str, keyword: str, value: str) -> None:
    try:
        setattr(dataset, name, value.split("\\") if "\\" in value else value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{keyword} cannot have that value") from error


def contradicts(answer: Dataset, keys: Mapping[str, str]) -> bool:
    """Tell whether `answer` has another value where `keys` asks for exactly one: no wildcard, list or range, or a `SingleValue`."""
    for keyword, wanted in keys.items():
        asked = wanted.strip()
        wild = any(mark in asked for mark in "*?\\^")
        single = isinstance(wanted, SingleValue)
        if not asked or keyword not in _EXACT or (wild and not single):
            continue
        found = text(answer, keyword)
        if found == asked or (not found and not wild):
            continue
        if isinstance(wanted, SingleValue) and len(wanted.others) < MAX_OTHERS:
            wanted.others.add(found)
        return True
    return False


_EXACT = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber", "PatientID", "StudyID"})
"""Keys whose values are compared as they are: others may be matched without regard to case, or as ranges (PS3.4 §C.2.2.2)."""


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text, several joined by a backslash; empty where there is none or it cannot be read."""
    try:
        with readable():
            value = dataset.get(keyword)
            if value is None:
                return ""
            if isinstance(value, MultiValue):
                return "\\".join(_printable(one) for one in value)
            return _printable(value)
    except ProtocolError:
        return ""


def _printable(value: object) -> str:
    """Return one value without its padding, and without half characters, which neither a file nor a database takes.

    Sequences and bytes, which no key of a query has, are nothing.
    """
    if isinstance(value, Sequence | bytes):
        return ""
    return str(value).strip(_PADDING).encode("utf-8", "replace").decode()


_PADDING = "\0 \t\r\n"
"""A value may be padded by a NUL or by spaces (PS3.5 §6.2), and some sources use the one where the other belongs, or both."""


def count_of(dataset: Dataset, keyword: str) -> int | None:
    """Return a count that a source gave, or None where it is no natural number."""
    value = text(dataset, keyword)
    return int(value) if value.isdecimal() and len(value) < 12 else None


def as_values(dataset: Dataset) -> dict[str, str]:
    """Return a match as keyword → value; sequences and group 0000 are left out, and elements whose keyword is not theirs alone.

    Private elements have none, and those of a repeating group (PS3.5 §7.6) have one for all of them.
    """
    keywords = ((tag, keyword_for_tag(tag)) for tag in sorted(dataset.keys()) if tag.group != 0)
    named = [keyword for tag, keyword in keywords if keyword and tag_for_keyword(keyword) == tag]
    return {keyword: text(dataset, keyword) for keyword in named if dictionary_VR(keyword) != "SQ"}
