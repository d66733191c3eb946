"""Asking a peer by C-FIND what a lister wants to know, and answers that say whether they were cut short (PS3.4 §C.4.1).

Blocks on the association. Answers are input from a stranger: see `gateway.association.scu.query`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any, cast

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from gateway.archives.lister.evidence import Answer, Lister, Listing, Query
from gateway.association.dimse.statuses import StatusKind, find_kind
from gateway.association.scu.query import AT_STUDY_LEVEL, Finder, contradicts, identifier, text
from gateway.core.errors import DimseFailed

Ask = Callable[[Query], Answer]

_LIMITED = frozenset({StatusKind.CANCELLED, StatusKind.WARNING, StatusKind.OUT_OF_RESOURCES})
"""The statuses that end an answer without all matches in it: FE00 of Orthanc, B001 or A700 of others (PS3.4 §C.4.1.1.4)."""

_NUMBERS = ("InstanceNumber", "SeriesNumber")


def ask_by(finder: Finder, *, busy: bool = True) -> Ask:
    """Return what asks `finder`. With `busy` a refusal for want of resources is taken for one that finds too much.

    Raises (when it is called):
        DimseFailed: the peer refuses the query, or is busy (without `busy`).
        AssociationError: the association ended.
    """
    return partial(_answer, finder, busy=busy, part=False)


def list_all(lister: Lister, finder: Finder, *, busy: bool = True) -> Listing:
    """Ask `finder` until nothing is to be asked any more; return what was found. See `go_through`."""
    go_through(lister, finder, busy)
    return lister.listing


def go_through(lister: Lister, finder: Finder, busy: bool) -> None:
    """Ask until nothing is to be asked any more; called again after an error, carry on with what was not answered.

    With `busy` a refusal for want of resources is taken for one that finds too much. A part of what was asked first may be refused.

    Raises:
        AssociationError: the association ended, the peer is busy (without `busy`), or it refuses the first query.

    """
    while (query := lister.query) is not None:
        lister.feed(_answer(finder, query, busy=busy, part=lister.begun))


def _answer(finder: Finder, query: Query, *, busy: bool, part: bool) -> Answer:
    names = tuple(dict.fromkeys((*query.wanted, *(_name(query, keyword) for keyword in query.keys))))
    matches: list[Mapping[str, str]] = []
    count = 0
    try:
        with closing(cast(Any, finder.find(_identifier(query)))) as found:
            for match in found:
                count += 1
                if not contradicts(match, query.keys):
                    matches.append({name: value for name in names if (value := text(match, name))})
    except DimseFailed as error:
        kind = find_kind(error.status)
        busy_now = kind is StatusKind.OUT_OF_RESOURCES and not busy
        if count or (kind in _LIMITED and not busy_now):
            return Answer(tuple(matches), count, cut=True)
        if busy_now or not part:
            raise
        return Answer(refused=True)
    return Answer(tuple(matches), count)


def _name(query: Query, keyword: str) -> str:
    return AT_STUDY_LEVEL.get(keyword, keyword) if query.level == "STUDY" else keyword


def _identifier(query: Query) -> Dataset:
    """Return the C-FIND identifier; a range of numbers, which is no value of an IS, is put in as it is."""
    ranges = {keyword: query.keys[keyword] for keyword in _NUMBERS if "-" in query.keys.get(keyword, "")[1:]}
    dataset = identifier(query.level, {key: value for key, value in query.keys.items() if key not in ranges}, query.wanted)
    for keyword, value in ranges.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        padded = value.encode() + b" " * (len(value) % 2)
        dataset[tag] = RawDataElement(tag, "IS", len(padded), padded, 0, False, True)
    return dataset
