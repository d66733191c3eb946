"""What arrived: instances, the arrivals that brought them, and where their bytes stand.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. `record` is the only way
in: it decides, inside the transaction, whether an instance is new, already there, or contradicts what is there, so that the
same SOP Instance UID arriving on two associations at once is decided once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from gateway.domain import Content, InstanceIdentity, Provenance

MISSING_REASON = "the spooled bytes are missing"
SUPERSEDED_REASON = "superseded by another content under the same SOP Instance UID"


class BytesState(StrEnum):
    """Where an instance's bytes stand."""

    KEPT = "kept"
    RELEASED = "released"
    MISSING = "missing"


class ArrivalOutcome(StrEnum):
    """What an arrival was, seen against the instances that the ledger knew."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance whose bytes are durable, about to be recorded. `at` is in UTC seconds since the epoch."""

    identity: InstanceIdentity
    provenance: Provenance
    content: Content
    destinations: tuple[str, ...]
    at: float
    retrieval_id: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival.

    `bytes_needed` is False when the ledger refers to bytes that it already had: the arrival's own may be removed.
    `queued` names the destinations that have something to deliver because of this arrival.
    """

    instance_id: int
    outcome: ArrivalOutcome
    arrival: Arrival
    bytes_needed: bool
    queued: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One row of `instances`."""

    id: int
    identity: InstanceIdentity
    content: Content
    provenance: Provenance
    bytes_state: BytesState
    superseded_by: int | None
    routed: bool
    received_at: float


def record(connection: Connection, arrival: Arrival) -> Recorded:
    """Record `arrival` with its deliveries and return what it was.

    The SOP Instance UID is unknown: a new instance. Known with the same content (digest and length): no second instance; where
    the bytes had been released or were missing, the new ones take their place and are delivered again. Known with other
    content: both are kept, the newer is delivered, and the older one's unsettled deliveries are dropped with the reason.
    """
    raise NotImplementedError


def add_deliveries(connection: Connection, instance_id: int, destinations: Sequence[str], *, now: float) -> tuple[str, ...]:
    """Queue the instance for those `destinations` that it has no delivery to yet, and return them."""
    raise NotImplementedError


def find(connection: Connection, sop_instance_uid: str) -> list[StoredInstance]:
    """Return every instance recorded under the UID, the newest first."""
    raise NotImplementedError


def get(connection: Connection, instance_id: int) -> StoredInstance | None:
    """Return the instance with this id."""
    raise NotImplementedError


def at_locations(connection: Connection, locations: Collection[str]) -> dict[str, StoredInstance]:
    """Return the instances whose bytes are recorded at `locations`, by location."""
    raise NotImplementedError


def with_location_prefix(connection: Connection, prefix: str) -> list[tuple[int, str, BytesState]]:
    """Return (id, location, bytes state) of the instances whose location starts with `prefix`, in order of location."""
    raise NotImplementedError


def known_uids(connection: Connection, sop_instance_uids: Collection[str]) -> set[str]:
    """Return which of the SOP Instance UIDs were recorded at any time that the ledger remembers."""
    raise NotImplementedError


def unrouted(connection: Connection, *, after: int = 0, limit: int = 500) -> list[StoredInstance]:
    """Return instances with id above `after` that no route matched and that are not superseded, in order of id."""
    raise NotImplementedError


def releasable(connection: Connection, *, limit: int = 500) -> list[tuple[int, str]]:
    """Return (id, location) of kept instances whose every delivery is settled, so that their bytes may go.

    Unrouted instances stay. A superseded instance with a dropped delivery stays: its content may be nowhere else.
    """
    raise NotImplementedError


def mark_released(connection: Connection, instance_ids: Sequence[int]) -> list[int]:
    """Record that the bytes may be removed, for those of `instance_ids` that still are releasable; return these."""
    raise NotImplementedError


def mark_missing(connection: Connection, instance_ids: Sequence[int], *, now: float) -> int:
    """Record that bytes are gone: kept instances become missing and their unsettled deliveries held. Returns how many."""
    raise NotImplementedError


def forget(connection: Connection, *, before: float, limit: int = 500) -> int:
    """Delete up to `limit` instances received before `before` whose bytes are released. Returns how many."""
    raise NotImplementedError
