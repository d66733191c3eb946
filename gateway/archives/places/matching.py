"""Matching by C-FIND keys where the place itself cannot (PS3.4 §C.2.2.2): files, and what an archive does not search by. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword

_RANGES = frozenset({"DA", "TM", "DT"})
_WITHOUT_WILDCARDS = frozenset({"DA", "TM", "DT", "UI", "IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "AS"})


def matches(values: Mapping[str, str], keys: Mapping[str, str]) -> bool:
    """Tell whether attributes with these `values` match all `keys`; what has no value only matches an empty key."""
    return all(value_matches(keyword, values.get(keyword, ""), wanted) for keyword, wanted in keys.items())


def value_matches(keyword: str, value: str, wanted: str) -> bool:
    """Tell whether one attribute matches one key; of several values (joined by a backslash) one is enough."""
    wanted = wanted.strip()
    if not wanted or wanted == "*":
        return True
    vr = _vr(keyword)
    values = [part.strip() for part in value.split("\\")]
    return any(_one(vr, part, asked.strip()) for part in values for asked in wanted.split("\\") if part)


def _one(vr: str, value: str, wanted: str) -> bool:
    if vr in _RANGES and "-" in wanted:
        begin, _, end = wanted.partition("-")
        return _plain(vr, begin) <= _plain(vr, value) and (not end or _plain(vr, value)[: len(_plain(vr, end))] <= _plain(vr, end))
    if vr in _RANGES:
        return _plain(vr, value).startswith(_plain(vr, wanted))
    if vr in _WITHOUT_WILDCARDS or not {"*", "?"} & set(wanted):
        return value.casefold() == wanted.casefold() if vr == "PN" else value == wanted
    return _pattern(wanted, vr == "PN").fullmatch(value) is not None


def _plain(vr: str, value: str) -> str:
    """Return a date or time without the punctuation of ACR-NEMA, which compares as text does."""
    return value.replace(".", "" if vr == "DA" else ".").replace(":", "").strip()


@lru_cache(maxsize=256)
def _pattern(wanted: str, any_case: bool) -> re.Pattern[str]:
    text = "".join({"*": ".*", "?": "."}.get(character) or re.escape(character) for character in wanted)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if any_case else 0))


@lru_cache(maxsize=256)
def _vr(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return dictionary_VR(tag) if tag is not None else ""
