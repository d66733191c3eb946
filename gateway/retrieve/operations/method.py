"""By which operation a source is asked for instances, and when the other one is tried. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from gateway.retrieve.recovery import End, Round

Choice = Literal["move", "get", "auto"]
"""The method in the configuration; auto is to find out."""


class Method(StrEnum):
    """An operation that retrieves (PS3.4 §C.4)."""

    MOVE = "move"
    """C-MOVE: the source sends on associations that it requests."""

    GET = "get"
    """C-GET: it sends on the association on which it is asked."""


def methods(choice: Choice, works: Method | None) -> tuple[Method, ...]:
    """Return by what to ask, and by what where that is in vain; `works` is what the source is known to carry out."""
    if choice != "auto":
        return (Method(choice),)
    return (Method.GET, Method.MOVE) if works is Method.GET else (Method.MOVE, Method.GET)


def in_vain(rounds: Sequence[Round], *, proven: bool) -> bool:
    """Tell whether the other operation is likelier to help than further rounds of this one.

    That is so where it brought nothing and is refused for good, or never brought anything before (not `proven`): a source that
    cannot reach us answers C-MOVE in as many ways as there are sources.
    """
    if any(one.gained for one in rounds):
        return False
    return rounds[-1].end is End.REFUSED or not (proven or rounds[-1].end is End.BUSY)
