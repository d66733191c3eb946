"""The folder that each folder destination delivers into, remembered so that another one in its place is noticed.

A folder is known by the id in its marker file; device and inode help to say what happened when the marker is not there. The
memory is a fact about the destination (`gateway.ledger.peers.learned`): a JSON object of paths. Every function takes a `Connection`
first; those that change something belong into `Ledger.write`. Times are UTC seconds since the epoch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from gateway.core.domain import DeliveryState
from gateway.ledger.database.schema import deliveries
from gateway.ledger.peers import learned

FACT = "folders"
"""The fact about a destination that holds the folders that it has delivered into, by path."""

OWNER = "owner"
"""The fact about the gateway itself that holds a token, which tells its unfinished files in a folder from those of others."""

OURSELVES = "gateway"


@dataclass(frozen=True, slots=True)
class KnownFolder:
    """A folder that was delivered into: the id in its marker, and where the file system had it last."""

    id: str
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class FolderMemory:
    """The memory of the folder at a path.

    `known` is None where no folder was, or where a person `accepted` whatever lies there next. `delivered` says that instances were
    delivered before folders were remembered at all, by an older gateway.
    """

    known: KnownFolder | None = None
    accepted: bool = False
    delivered: bool = False


def recall(connection: Connection, destination: str, path: str, *, now: float) -> FolderMemory:
    """Return what is remembered of the folder at `path`, under whatever name of a destination."""
    facts = {subject: json.loads(value) for subject, value in learned.all_of(connection, FACT, now=now).items()}
    own = facts.get(learned.destination_subject(destination))
    for paths in ([own] if own is not None else []) + list(facts.values()):
        if path in paths:
            known = paths[path]
            return FolderMemory(None if known is None else KnownFolder(**known), accepted=known is None)
    return FolderMemory(delivered=own is None and _has_delivered(connection, destination))


def remember(connection: Connection, destination: str, path: str, known: KnownFolder, *, now: float) -> None:
    """Remember the folder at `path`."""
    _put(connection, destination, path, asdict(known), now)


def accept(connection: Connection, destination: str, path: str, *, now: float) -> None:
    """Have whatever lies at `path` at the next delivery taken for the destination's folder, and made where nothing does."""
    for subject, value in learned.all_of(connection, FACT, now=now).items():
        if path in json.loads(value):
            _put(connection, subject.removeprefix(learned.destination_subject("")), path, None, now)
    _put(connection, destination, path, None, now)


def owner(connection: Connection, fresh: str, *, now: float) -> str:
    """Return the token of this gateway, `fresh` where it has none yet."""
    known = learned.get(connection, OURSELVES, OWNER, now=now)
    if known is None:
        learned.put(connection, OURSELVES, OWNER, fresh, now=now)
    return known or fresh


def _put(connection: Connection, destination: str, path: str, known: dict[str, Any] | None, now: float) -> None:
    subject = learned.destination_subject(destination)
    paths = json.loads(learned.get(connection, subject, FACT, now=now) or "{}")
    learned.put(connection, subject, FACT, json.dumps(paths | {path: known}), now=now)


def _has_delivered(connection: Connection, destination: str) -> bool:
    done = deliveries.c.state.in_([DeliveryState.DELIVERED, DeliveryState.VERIFIED])
    found = select(deliveries.c.id).where(deliveries.c.destination == destination, done).limit(1)
    return connection.execute(found).first() is not None
