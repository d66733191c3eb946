"""Reading what QIDO-RS answers: the DICOM JSON model (PS3.18 Annex F), from strangers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import tag_for_keyword

from gateway.archives.http import clean
from gateway.core.domain import is_uid


@dataclass(frozen=True)
class Match:
    """One match of a query: an object of the DICOM JSON model."""

    elements: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        """Return a value as text, several joined by a backslash; empty where there is none."""
        return "\\".join(map(_text, self._values(keyword)))

    def uid(self, keyword: str) -> str:
        """Return a UID, or nothing where what stands there is none."""
        value = self.text(keyword)
        return value if is_uid(value) else ""

    def count(self, keyword: str) -> int | None:
        """Return a number of resources (VR IS), None where there is none."""
        value = self.text(keyword)
        return int(value) if value.isdecimal() and len(value) < 12 else None

    def _values(self, keyword: str) -> list[Any]:
        tag = tag_for_keyword(keyword)
        element = self.elements.get(f"{tag:08X}") if tag is not None else None
        values = element.get("Value") if isinstance(element, dict) else None
        return values if isinstance(values, list) else []


def _text(value: object) -> str:
    """Return one value as text: a person's name by its alphabetic form (PS3.18 §F.2.2), nothing for what is no plain value."""
    if isinstance(value, dict):
        value = value.get("Alphabetic", "")
    if isinstance(value, int | float):
        return str(value)
    return (clean(value) or "").strip("\0 ")


def matches_of(document: object) -> list[Match] | None:
    """Return the matches in an answer's JSON; None where it is no list of objects."""
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        return None
    return [Match(one) for one in document]
