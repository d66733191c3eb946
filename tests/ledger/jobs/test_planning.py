"""Instances of a migrated study that are proved to be at its destinations: only they may be deleted from its source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.core.domain import Basis, DeliveryState, InstanceIdentity, Proof
from gateway.ledger.database import transitions
from gateway.ledger.deliveries import claiming
from gateway.ledger.jobs import planning, retrievals
from tests.support.instances import Store, store

STUDY = "1.2.3"
INSTANCE = f"{STUDY}.1.1"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "state") as opened:
        yield opened


def add(kept: Store, *to: str, uid: str = INSTANCE, study: str = STUDY, data: bytes = b"content") -> list[int]:
    """Record an instance; returns the ids of its deliveries."""
    identity = InstanceIdentity("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.1", study, f"{study}.1")
    instance = kept.add(identity, data, *to)
    return [row.id for row in kept.rows() if row.instance_id == instance]


def delivered(kept: Store, ids: list[int], proof: Proof | None = Proof.EXISTS) -> None:
    for state in (DeliveryState.SENDING, DeliveryState.DELIVERED):
        kept.ledger.write(partial(transitions.move, delivery_ids=ids, new=state, now=time.time()))
    if proof is not None:
        kept.ledger.write(partial(claiming.verify, delivery_ids=ids, proof=proof, now=time.time()))


def proved(kept: Store, *destinations: str, skipped: tuple[str, ...] = ()) -> tuple[set[str], bool]:
    job = kept.ledger.write(partial(retrievals.open_job, kind="migrate", fingerprint="f", criteria="{}", now=1.0))
    row = kept.ledger.write(partial(retrievals.open_retrieval, job_id=job.id, source="archive", study_instance_uid=STUDY, now=1.0))
    listed = dict.fromkeys((INSTANCE, *skipped), f"{STUDY}.1")
    kept.ledger.write(
        partial(retrievals.expect, retrieval_id=row.id, basis=Basis.UIDS, expected_count=1, listed=listed, skipped=skipped)
    )
    with kept.ledger.read() as connection:
        return planning.proved(connection, row.id, destinations)


@pytest.mark.parametrize("proof", [Proof.EXISTS, Proof.COMMITMENT])
def test_what_a_destination_was_asked_for_and_has_is_proved(kept: Store, proof: Proof) -> None:
    delivered(kept, add(kept, "a"), proof)
    assert proved(kept) == ({INSTANCE}, False)
    assert proved(kept, "a") == ({INSTANCE}, False)


def test_a_status_proves_nothing(kept: Store) -> None:
    delivered(kept, add(kept, "a"), Proof.STATUS)
    assert proved(kept) == (set(), False)


def test_what_is_on_its_way_or_not_asked_for_yet_is_waited_for(kept: Store) -> None:
    delivered(kept, add(kept, "a"), None)
    assert proved(kept) == (set(), True)


def test_every_destination_has_to_have_it(kept: Store) -> None:
    first, _ = add(kept, "a", "b")
    delivered(kept, [first])
    assert proved(kept) == (set(), True)
    assert proved(kept, "a", "b") == (set(), True)
    assert proved(kept, "a") == ({INSTANCE}, False)
    assert proved(kept, "a", "c") == (set(), False)


def test_what_went_nowhere_is_not_proved(kept: Store) -> None:
    add(kept)
    assert proved(kept) == (set(), False)


def test_the_same_uid_in_another_study_proves_nothing(kept: Store) -> None:
    delivered(kept, add(kept, "a", study="1.9"))
    assert proved(kept) == (set(), False)


@pytest.mark.parametrize("study", [STUDY, "1.9"])
def test_where_other_content_is_known_under_the_uid_nothing_is_proved(kept: Store, study: str) -> None:
    delivered(kept, add(kept, "a", study=study, data=b"other"))
    delivered(kept, add(kept, "a"))
    assert proved(kept) == (set(), False)


def test_what_the_destinations_listed_before_counts(kept: Store) -> None:
    delivered(kept, add(kept, "a"))
    assert proved(kept, "a", skipped=("1.2.3.1.2",)) == ({INSTANCE, "1.2.3.1.2"}, False)
