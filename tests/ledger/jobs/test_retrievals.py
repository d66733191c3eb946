"""Jobs that carry on, retrievals whose arrivals still count, and facts that peers taught."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.core.domain import Basis, Content, InstanceIdentity, Provenance, VerdictKind
from gateway.ledger import Ledger
from gateway.ledger.database.schema import instances
from gateway.ledger.jobs import retrievals
from gateway.ledger.peers import learned
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.recording import record

PROVENANCE = Provenance("ARCHIVE", "GATEWAY", "127.0.0.1", "a1", "archive")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def job(ledger: Ledger, fingerprint: str = "f") -> retrievals.Job:
    return ledger.write(partial(retrievals.open_job, kind="pull", fingerprint=fingerprint, criteria="{}", now=1.0))


def study(ledger: Ledger, job_id: int, uid: str = "1.2", now: float = 10.0) -> retrievals.Retrieval:
    return ledger.write(partial(retrievals.open_retrieval, job_id=job_id, source="archive", study_instance_uid=uid, now=now))


def end(ledger: Ledger, retrieval: retrievals.Retrieval, kind: VerdictKind) -> None:
    ledger.write(partial(retrievals.settle, retrieval_id=retrieval.id, verdict=kind, note="", now=20.0))


def done(ledger: Ledger, job_id: int, state: retrievals.JobState = "done") -> None:
    ledger.write(partial(retrievals.set_job_state, job_id=job_id, state=state, now=21.0))


def arrive(ledger: Ledger, uid: str, *, at: float = 11.0, retrieval: int | None = None, study_uid: str = "1.2") -> None:
    identity = InstanceIdentity("1.2.840.1", uid, "1.2.840.10008.1.2.1", study_uid, "1.2.1")
    arrival = Arrival(identity, PROVENANCE, Content(f"spool:{uid}{at}", 0, 7, "d"), (), at=at, retrieval_id=retrieval)
    ledger.write(partial(record, arrival=arrival))


def received(ledger: Ledger, retrieval: retrievals.Retrieval) -> set[str]:
    with ledger.read() as connection:
        return set(retrievals.received(connection, retrieval.id))


def test_the_same_command_carries_on_until_all_of_it_was_complete(ledger: Ledger) -> None:
    first = job(ledger)
    assert not first.resumed
    done(ledger, first.id, "stopped")
    assert job(ledger) == retrievals.Job(first.id, resumed=True)

    one = study(ledger, first.id)
    end(ledger, one, VerdictKind.INCOMPLETE)
    done(ledger, first.id)
    assert job(ledger) == retrievals.Job(first.id, resumed=True)

    end(ledger, study(ledger, first.id), VerdictKind.COMPLETE)
    done(ledger, first.id)
    assert job(ledger).id != first.id
    assert not job(ledger, "another").resumed


def test_jobs_that_a_crash_left_running_are_stopped(ledger: Ledger) -> None:
    running = job(ledger)

    assert ledger.write(partial(retrievals.stop_running_jobs, now=5.0)) == 1
    assert job(ledger) == retrievals.Job(running.id, resumed=True)


def test_what_a_retrieval_expects_counts_whomever_it_was_counted_to(ledger: Ledger) -> None:
    one = study(ledger, job(ledger).id)
    expect = partial(retrievals.expect, retrieval_id=one.id, basis=Basis.UIDS, expected_count=3)
    ledger.write(partial(expect, listed={"1.2.1.1": "1.2.1", "1.2.1.2": "1.2.1", "1.2.1.3": "1.2.1"}))

    arrive(ledger, "1.2.1.1", retrieval=one.id)
    arrive(ledger, "1.2.1.2")
    arrive(ledger, "1.2.1.3", at=9.0)
    arrive(ledger, "1.2.1.9", retrieval=one.id)

    assert received(ledger, one) == {"1.2.1.1", "1.2.1.2", "1.2.1.9"}


def test_an_instance_whose_bytes_are_missing_was_not_received(ledger: Ledger) -> None:
    one = study(ledger, job(ledger).id)
    arrive(ledger, "1.2.1.1", retrieval=one.id)
    ledger.write(lambda connection: connection.execute(update(instances).values(bytes_state="missing")))

    assert received(ledger, one) == set()


def test_with_counts_instances_of_the_study_that_came_for_nobody_count(ledger: Ledger) -> None:
    one = study(ledger, job(ledger).id)
    arrive(ledger, "1.2.1.1", retrieval=one.id)
    arrive(ledger, "1.2.1.2")
    arrive(ledger, "1.2.1.3", study_uid="1.9")
    arrive(ledger, "1.2.1.4", at=9.0)

    with ledger.read() as connection:
        assert set(retrievals.lengths(retrievals.came_of_study(connection, one.id, "1.2"))) == {"1.2.1.1", "1.2.1.2"}


def test_a_resumed_study_keeps_its_arrivals_and_loses_its_verdict(ledger: Ledger) -> None:
    first = job(ledger)
    one = study(ledger, first.id)
    arrive(ledger, "1.2.1.1", retrieval=one.id)
    end(ledger, one, VerdictKind.INCOMPLETE)

    again = study(ledger, first.id, now=30.0)

    assert (again.id, again.verdict, again.started_at) == (one.id, None, 10.0)
    assert received(ledger, again) == {"1.2.1.1"}


def test_keys_that_found_nothing_are_forgotten_when_they_are_asked_again(ledger: Ledger) -> None:
    first = job(ledger)
    end(ledger, study(ledger, first.id, ""), VerdictKind.EMPTY)
    end(ledger, study(ledger, first.id, "1.2"), VerdictKind.COMPLETE)

    ledger.write(partial(retrievals.forget_unfound, job_id=first.id))

    with ledger.read() as connection:
        assert [one.study_instance_uid for one in retrievals.retrievals_of(connection, first.id)] == ["1.2"]


def test_what_is_expected_is_replaced_when_a_study_is_listed_again(ledger: Ledger) -> None:
    one = study(ledger, job(ledger).id)
    expect = partial(retrievals.expect, retrieval_id=one.id, basis=Basis.UIDS)
    ledger.write(partial(expect, expected_count=1, listed={"1.2.1.1": "1.2.1"}))
    ledger.write(partial(expect, expected_count=2, listed={"1.2.1.1": "1.2.1", "1.2.2.1": "1.2.2"}, skipped={"1.2.1.1"}))

    with ledger.read() as connection:
        assert retrievals.expected(connection, one.id) == ({"1.2.1.1": "1.2.1", "1.2.2.1": "1.2.2"}, {"1.2.1.1"})


def test_a_fact_is_known_until_it_expires_or_is_forgotten(ledger: Ledger) -> None:
    subject = learned.source_subject("archive")
    put = partial(learned.put, subject=subject, fact=learned.ACCEPTANCE_ORDER)
    ledger.write(partial(put, value="j2k-first", now=1.0))
    ledger.write(partial(put, value="uncompressed-first", now=2.0, expires_at=10.0))

    with ledger.read() as connection:
        assert learned.get(connection, subject, learned.ACCEPTANCE_ORDER, now=5.0) == "uncompressed-first"
        assert learned.get(connection, subject, learned.ACCEPTANCE_ORDER, now=10.0) is None
        assert learned.all_of(connection, learned.ACCEPTANCE_ORDER, now=5.0) == {subject: "uncompressed-first"}
    ledger.write(partial(learned.forget, subject=subject, fact=learned.ACCEPTANCE_ORDER))
    with ledger.read() as connection:
        assert learned.all_of(connection, learned.ACCEPTANCE_ORDER, now=5.0) == {}
