"""Jobs of the transcoder: deliveries of one content into one transfer syntax are one job. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.core.domain import Consignment, Content
from gateway.delivery.transcoding.copies import Key, key_of


@dataclass(slots=True)
class Job:
    """Deliveries of one content that are to go out in the same transfer syntax."""

    target: str
    consignments: tuple[Consignment, ...]
    has_followers: bool = False
    """Others want the same since it was begun."""

    @property
    def content(self) -> Content:
        """The content that all of them deliver."""
        return self.consignments[0].content

    @property
    def stored(self) -> str:
        """The transfer syntax UID that it is stored in."""
        return self.consignments[0].identity.transfer_syntax_uid

    @property
    def key(self) -> Key:
        """The key by which the copy is known."""
        return key_of(self.content, self.stored, self.target)

    @property
    def ids(self) -> set[int]:
        """The ids of the deliveries."""
        return {each.delivery_id for each in self.consignments}

    @property
    def destinations(self) -> list[str]:
        """The names of their destinations."""
        return sorted({each.destination for each in self.consignments})


def within(consignments: Sequence[Consignment], room_bytes: int) -> list[Consignment]:
    """Return the first of `consignments` that fit into `room_bytes`, and the one that makes it full."""
    taken = []
    for each in consignments:
        if room_bytes <= 0:
            break
        room_bytes -= each.content.length
        taken.append(each)
    return taken


def jobs_of(consignments: Iterable[Consignment]) -> list[Job]:
    """Return what is to be transcoded, each content into each transfer syntax once, in order."""
    alike: dict[tuple[Key, str], list[Consignment]] = defaultdict(list)
    for each in consignments:
        target = each.sent_as or each.identity.transfer_syntax_uid
        alike[key_of(each.content, each.identity.transfer_syntax_uid, target), target].append(each)
    return [Job(target, tuple(some)) for (_, target), some in alike.items()]
