"""Keys that a route's `when` may have: who sent what to whom, and DICOM keywords that instances can be routed by. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPERATION_KEYS = frozenset({"calling_ae", "called_ae", "source"})
"""Keys of `when` that are no DICOM keyword: who sent the instance to whom, and its name under ``[sources]``."""

_FIRST_DATA_SET_GROUP = 0x0008
_PIXEL_GROUP = 0x7FE0
_UNROUTABLE_VRS = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})


def unknown_keywords(when: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Return the keys of `when` that no instance can be routed by, in their order.

    Routable are ``calling_ae``, ``called_ae``, ``source`` and the keywords (PS3.6) of data set elements that hold text or
    numbers: no sequences, no bulk data, nothing of the File Meta Information.
    """
    return [key for key in when if key not in OPERATION_KEYS and not _is_routable(key)]


def _is_routable(keyword: str) -> bool:
    # Here, since a command reads the configuration before it does anything: only keywords need the dictionary.
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None or not _FIRST_DATA_SET_GROUP <= tag >> 16 < _PIXEL_GROUP:
        return False
    return not any(vr in _UNROUTABLE_VRS for vr in dictionary_VR(tag).split(" or "))
