"""Bounds on what a peer may answer to one C-FIND: how many matches, how much of them is kept, and for how long.

A peer that does not come to an end must not hold a thread or take memory for ever. Pure, but for the clock.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import filterfalse

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from gateway.core.errors import ProtocolError
from gateway.dicom.elements import CHARACTER_SET

MAX_MATCHES = 1_000_000
"""Matches of one query at most: more is a peer that does not end."""

MAX_KEPT_BYTES = 128 * 1024 * 1024
"""The most that the matches of one query may take together, in bytes, counting only the elements that were asked for."""

MAX_VALUE_BYTES = 64 * 1024
"""A longer value is none: no key that is matched or shown has one."""

ELEMENT_BYTES = 80
"""The memory that an element takes beside its value, in bytes."""


class Bounds:
    """Counts what came for one query, of which `deadline` (monotonic seconds) is the end."""

    def __init__(self, wanted: frozenset[int], query_s: float) -> None:
        self._wanted = wanted
        self._query_s = query_s
        self._deadline = time.monotonic() + query_s
        self._matches = 0
        self._bytes = 0

    def heard(self) -> None:
        """Count a pending response.

        Raises:
            ProtocolError: there are too many, or they take too long.
        """
        self._matches += 1
        if self._matches > MAX_MATCHES:
            raise ProtocolError(f"the peer answers a query with more than {MAX_MATCHES} matches: ask for less")
        if time.monotonic() > self._deadline:
            raise ProtocolError(
                f"the peer was still answering a query after {self._query_s:g} s: ask for less, by dates for instance"
            )

    def keep(self, match: Dataset) -> Dataset:
        """Return a match with what was asked for alone: all else is ignored (PS3.4 §C.4.1.1.3).

        Raises:
            ProtocolError: all of them together take too much.
        """
        for tag in list(filterfalse(partial(self._keeps, match), match.keys())):
            del match[tag]
        self._bytes += sum(ELEMENT_BYTES + length for length in map(partial(_length, match), match.keys()))
        if self._bytes > MAX_KEPT_BYTES:
            limit = MAX_KEPT_BYTES // 1_048_576
            raise ProtocolError(f"the answers to one query hold more than {limit} MiB: ask for less, by dates for instance")
        return match

    def _keeps(self, match: Dataset, tag: int) -> bool:
        return (tag in self._wanted or tag == CHARACTER_SET) and _length(match, tag) <= MAX_VALUE_BYTES


def _length(match: Dataset, tag: int) -> int:
    element = match.get_item(tag)
    return element.length if isinstance(element, RawDataElement) else ELEMENT_BYTES
