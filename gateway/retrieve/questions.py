"""Queries at STUDY level that depend on each other's replies, and replies that say whether they were cut short (PS3.4 §C.4.1).

Blocks on the association. Replies are input from a stranger: see `gateway.association.query`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, cast

from gateway.association.query import as_values, bounded, contradicts, identifier
from gateway.association.requestor import Requestor
from gateway.association.statuses import StatusKind, find_meaning
from gateway.errors import DimseFailed

WANTED = ("StudyInstanceUID", "NumberOfStudyRelatedInstances", "StudyDate", "StudyTime", "PatientID", "PatientName")
"""What is asked for of each study."""

_LIMITED = frozenset({StatusKind.CANCELLED, StatusKind.WARNING, StatusKind.OUT_OF_RESOURCES})
"""How sources end a reply that has not all matches in it: Orthanc by FE00, others by B001 or A700 (PS3.4 §C.4.1.1.4)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came for one query: its matches as keyword → value, without the `count` less those that contradict the keys.

    `cut` says that the source tells of more, or refuses for finding too much; `refused`, that it does not answer such a query.
    """

    matches: tuple[dict[str, str], ...] = ()
    count: int = 0
    cut: bool = False
    refused: bool = False


class Questions(Protocol):
    """What is asked next, and who hears the reply."""

    @property
    def query(self) -> Mapping[str, str] | None:
        """The matching keys of the next query, None when nothing is to be asked any more."""

    @property
    def begun(self) -> bool:
        """Tell whether the first was replied to: all others ask for parts of it."""

    def take(self, reply: Reply) -> None:
        """Hear the reply to `query`."""


def go_through(questions: Questions, requestor: Requestor, busy: bool) -> None:
    """Ask until nothing is to be asked any more; called again after an error, carry on with what was not answered.

    With `busy` a refusal for want of resources is taken for one that finds too much. A part of what was asked first may be refused.

    Raises:
        AssociationError: the association ended, the source is busy (without `busy`), or it refuses the first query.

    """
    while (keys := questions.query) is not None:
        questions.take(_reply(requestor, keys, busy=busy, part=questions.begun))


def _reply(requestor: Requestor, keys: Mapping[str, str], *, busy: bool, part: bool) -> Reply:
    matches: list[dict[str, str]] = []
    count = 0
    try:
        with closing(cast(Any, requestor.find(identifier("STUDY", keys, WANTED)))) as found:
            for match in bounded(found):
                count += 1
                if not contradicts(match, keys):
                    matches.append(as_values(match))
    except DimseFailed as error:
        kind = find_meaning(error.status).kind
        busy_now = kind is StatusKind.OUT_OF_RESOURCES and not busy
        if count or (kind in _LIMITED and not busy_now):
            return Reply(tuple(matches), count, cut=True)
        if busy_now or not part:
            raise
        return Reply(refused=True)
    return Reply(tuple(matches), count)
