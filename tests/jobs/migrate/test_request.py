"""Requests for a migration, and their meaning after a restart."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.domain import Priority
from gateway.core.errors import UsageError
from gateway.jobs.migrate import MigrationRequest


def asked(**more: Any) -> MigrationRequest:
    return MigrationRequest("archive", **({"first": "2024-02-27", "last": "2024-03-02"} | more))


def test_days_are_listed_from_the_first_to_the_last_or_backwards() -> None:
    days = ("2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02")
    assert asked().portions() == days
    assert asked(reverse=True).portions() == days[::-1]
    assert asked().keys("2024-02-29") == {"StudyDate": "20240229"}


def test_list_entries_are_separate_portions_with_anonymous_labels() -> None:
    request = MigrationRequest("archive", patient_ids=("P1", "P2", "P1"))
    assert request.portions() == ("#1", "#2")
    assert request.keys("#2") == {"PatientID": "P2"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"first": "2024-13-01"}, "--from: found '2024-13-01'"),
        ({"last": ""}, "--to: found ''"),
        ({"first": "2024-03-03"}, "--from is after --to"),
        ({"study_uids": ("1.2.3",)}, "one way"),
        ({"first": "", "last": ""}, "one way"),
        ({"first": "", "last": "", "study_uids": ("1.2.*",)}, "Study Instance UID"),
        ({"first": "", "last": "", "patient_ids": ("*",)}, "match every study"),
    ],
)
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        asked(**more)


dates = st.dates(date(1990, 1, 1), date(2030, 1, 1))


@given(dates, st.integers(0, 500), st.booleans(), st.sampled_from(list(Priority)), st.sampled_from([None, 0.5]))
def test_a_request_comes_back_from_the_ledger_as_it_was(
    first: date, days: int, reverse: bool, priority: Priority, max_used: float | None
) -> None:
    request = MigrationRequest(
        "archive",
        first.isoformat(),
        (first + timedelta(days=days)).isoformat(),
        reverse=reverse,
        destinations=("a", "b"),
        priority=priority,
        max_used=max_used,
    )
    assert MigrationRequest.of(request.criteria()) == request
    assert len(request.portions()) == days + 1


def test_how_it_is_done_does_not_make_it_another_migration() -> None:
    assert asked(moves=3, when="night", priority=Priority.HIGH, max_used=0.9).fingerprint() == asked().fingerprint()
    assert asked(destinations=("a",)).fingerprint() != asked().fingerprint()
    assert asked(reverse=True).fingerprint() != asked().fingerprint()
