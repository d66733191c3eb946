"""Delivered but not verified: what waits for proof at a destination, and what the proof or its lack changes.

Every function takes a `Connection` first; those that change something belong into `Ledger.write`. Times are UTC seconds since
the epoch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from gateway.core.domain import Content, DeliveryState, Proof
from gateway.ledger.database.rows import chunks
from gateway.ledger.database.schema import arrivals, commitment_items, commitments, deliveries, instances, retrievals
from gateway.ledger.database.transitions import move
from gateway.ledger.deliveries.claiming import rivals, verify

WAS_THERE = "the destination listed it before it was sent: whether it took what was sent, or kept what it had, is not known"

MAX_LOST = 2
"""The first time that a destination does not have what it answered success for, it is sent again; then a person looks at it."""


RIVALS = "proved by status only: other content is known under this SOP Instance UID, and a list does not tell them apart"


@dataclass(frozen=True, slots=True)
class WaitingStudy:
    """Delivered instances of one study at one destination: when the first and the last of those unverified were delivered.

    `newest_id` is the instance among them that the ledger heard of last.
    """

    study_instance_uid: str
    first_at: float
    last_at: float
    count: int
    newest_id: int


@dataclass(frozen=True, slots=True)
class Unverified:
    """One delivery that waits for proof. `reason` is the warning that it was delivered with.

    `has_rivals` says that other content is known under its SOP Instance UID: that the UID is there does not say which content.
    `was_there` says whether the destination listed it before it was sent, None where that is not known.
    """

    delivery_id: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    lost: int
    reason: str | None
    has_rivals: bool = False
    was_there: bool | None = None


def waiting_studies(connection: Connection, destination: str) -> list[WaitingStudy]:
    """Return the studies with unverified deliveries at `destination`, the one waiting longest first.

    Instances whose commitment was requested and not answered yet are left out.
    """
    statement = (
        select(
            instances.c.study_instance_uid,
            func.min(deliveries.c.changed_at),
            func.max(deliveries.c.changed_at),
            func.count(),
            func.max(instances.c.id),
        )
        .join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
        .where(
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.DELIVERED,
            deliveries.c.id.not_in(_asked(destination)),
        )
        .group_by(instances.c.study_instance_uid)
        .order_by(func.min(deliveries.c.changed_at))
    )
    return [WaitingStudy(*row) for row in connection.execute(statement)]


def unverified(connection: Connection, destination: str, study_instance_uid: str) -> list[Unverified]:
    """Return the study's deliveries to `destination` that wait for proof and of which no commitment was requested."""
    mine = _of_study_at(study_instance_uid, destination, DeliveryState.DELIVERED)
    statement = unverified_columns().where(*mine, deliveries.c.id.not_in(_asked(destination))).order_by(deliveries.c.id)
    return [Unverified(*row) for row in connection.execute(statement)]


def is_busy(connection: Connection, destination: str, study_instance_uid: str) -> bool:
    """Tell whether more of the study is on its way to `destination` right now."""
    mine = _of_study_at(study_instance_uid, destination, DeliveryState.PENDING, DeliveryState.SENDING)
    statement = select(deliveries.c.id).join_from(instances, deliveries, deliveries.c.instance_id == instances.c.id).where(*mine)
    return connection.execute(statement.limit(1)).first() is not None


def was_retrieved(connection: Connection, instance_id: int) -> bool:
    """Tell whether an instance came last for a retrieval that has its verdict: nothing more is on its way from there."""
    return connection.execute(_WAS_RETRIEVED, {"instance": instance_id}).first() is not None


def _ended() -> Select[Any]:
    mine = select(arrivals.c.retrieval_id).where(arrivals.c.instance_id == bindparam("instance"))
    last = mine.order_by(arrivals.c.id.desc()).limit(1).scalar_subquery()
    return select(retrievals.c.id).where(retrievals.c.id == last, retrievals.c.verdict.is_not(None))


# Built once: it is asked of each study at each look.
_WAS_RETRIEVED = _ended()


def record_proof(connection: Connection, items: Sequence[Unverified], proof: Proof, *, now: float, note: str = "") -> int:
    """Record `proof` for `items`, with a `note` for people beside the warning that an instance was delivered with.

    Unless contents were compared, it is weaker where the destination listed an instance before it was sent, or other content is
    known under its SOP Instance UID.
    """
    alike: dict[tuple[Proof, str | None], list[int]] = defaultdict(list)
    for item in items:
        shown, why = _as_far_as_known(item, proof)
        alike[shown, _joined(item.reason, note, why)].append(item.delivery_id)
    return sum(verify(connection, ids, kind, now=now, reason=reason) for (kind, reason), ids in alike.items())


def _as_far_as_known(item: Unverified, proof: Proof) -> tuple[Proof, str]:
    """Return what `proof` is worth for `item`, and why it is no better. Pure."""
    if proof in {Proof.STATUS, Proof.DIGEST}:
        return proof, ""
    if item.was_there:
        return Proof.BEFORE, WAS_THERE
    return (Proof.STATUS, RIVALS) if item.has_rivals else (proof, "")


def record_differing(connection: Connection, items: Sequence[Unverified], *, now: float, reason: str) -> int:
    """Record that the destination holds other content than `items`: they are held for a person. Returns how many were."""
    ids = [item.delivery_id for item in items]
    return move(connection, ids, DeliveryState.HELD, now=now, only_from=[DeliveryState.DELIVERED], reason=reason)


def contents_of(connection: Connection, items: Sequence[Unverified]) -> dict[int, tuple[Content, str]]:
    """Return, by delivery, where the bytes of `items` are and in which transfer syntax."""
    columns = (
        deliveries.c.id,
        instances.c.location,
        instances.c.content_offset,
        instances.c.content_length,
        instances.c.digest,
        instances.c.transfer_syntax_uid,
    )
    found: dict[int, tuple[Content, str]] = {}
    for chunk in chunks([item.delivery_id for item in items]):
        statement = select(*columns).join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)
        for key, *content, syntax in connection.execute(statement.where(deliveries.c.id.in_(chunk))):
            found[key] = Content(*content), syntax
    return found


def record_missing(connection: Connection, items: Sequence[Unverified], *, now: float, reason: str) -> tuple[int, int]:
    """Record that the destination does not have `items`: to be sent once more, or held. Returns how many of each."""
    again, held = 0, 0
    by_lost: dict[int, list[int]] = defaultdict(list)
    for item in items:
        by_lost[item.lost + 1].append(item.delivery_id)
    for lost, ids in by_lost.items():
        columns: dict[str, Any] = {"only_from": [DeliveryState.DELIVERED], "lost": lost, "reason": reason}
        if lost < MAX_LOST:
            again += move(connection, ids, DeliveryState.PENDING, now=now, due_at=now, attempts=0, **columns)
        else:
            held += move(connection, ids, DeliveryState.HELD, now=now, **columns)
    return again, held


def unverified_columns() -> Select[Any]:
    """Return the selection of `Unverified` from deliveries and instances, joined."""
    return select(
        deliveries.c.id,
        instances.c.sop_class_uid,
        instances.c.sop_instance_uid,
        instances.c.series_instance_uid,
        instances.c.study_instance_uid,
        deliveries.c.lost,
        deliveries.c.reason,
        rivals(instances).label("has_rivals"),
        deliveries.c.was_there,
    ).join_from(deliveries, instances, instances.c.id == deliveries.c.instance_id)


def _of_study_at(study_instance_uid: str, destination: str, *states: DeliveryState) -> tuple[ColumnElement[bool], ...]:
    """Return conditions in words that let a database begin with the study only.

    No index serves a coalesced column: by destination and state it would read the whole queue for each study.
    """
    return (
        instances.c.study_instance_uid == study_instance_uid,
        func.coalesce(deliveries.c.destination, "") == destination,
        func.coalesce(deliveries.c.state, "").in_(states),
    )


def _asked(destination: str) -> Select[Any]:
    """Select the deliveries whose commitment was requested and not answered yet."""
    return (
        select(commitment_items.c.delivery_id)
        .join(commitments, commitments.c.transaction_uid == commitment_items.c.transaction_uid)
        .where(commitments.c.destination == destination, commitments.c.answered_at.is_(None))
    )


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None
