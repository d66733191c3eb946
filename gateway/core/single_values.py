"""A key of a query that names one value as it stands, and what is said of answers with other ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

MAX_OTHERS = 1000
"""Values of answers that were passed over which are kept."""


class SingleValue(str):
    """The one value that a key is to have, as it stands: what a source takes for wildcards in it are none.

    A source matches them all the same, and may pass over case or padding: answers with another value are passed over by
    `gateway.association.scu.query.contradicts`, and `others` has what they had, so that it can be said. It may name patients.
    """

    others: set[str]

    def __new__(cls, value: str) -> Self:
        """Take `value` as it stands."""
        made = super().__new__(cls, value)
        made.others = set()
        return made


def passed_over(keys: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values for whose sake answers to single values were passed over, in order."""
    return tuple(sorted({other for value in keys.values() if isinstance(value, SingleValue) for other in value.others}))


def how_passed_over(keys: Mapping[str, str]) -> str:
    """Return how many values were passed over and how they differ, in words without patient data; nothing where none was."""
    pairs = [(str(value), other) for value in keys.values() if isinstance(value, SingleValue) for other in value.others]
    if not pairs:
        return ""
    by_case = sum(value.strip().casefold() == other.casefold() for value, other in pairs)
    by_padding = sum(_bare(value) == _bare(other) and value.strip().casefold() != other.casefold() for value, other in pairs)
    ways = [(by_case, "by case only"), (by_padding, "by padding only"), (len(pairs) - by_case - by_padding, "otherwise")]
    told = ", ".join(f"{count} {way}" for count, way in ways if count)
    return f"answers were passed over whose value is another one: {told}"


def _bare(value: str) -> str:
    """Return `value` without what some systems fill it up with."""
    return value.casefold().replace(" ", "").lstrip("0")
