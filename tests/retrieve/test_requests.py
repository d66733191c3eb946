"""Valid requests, fingerprints of equal commands, and the end of a job."""

from __future__ import annotations

import pytest

from gateway.core.errors import UsageError
from gateway.retrieve import JobEnded, PullRequest


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"study_uids": ("1.2",), "patient_ids": ("P",)},
        {"study_uids": ("1.2", "1.2.*")},
        {"accession_numbers": ("A1", " ")},
        {"patient_ids": ("*",)},
        {"query": {"PatientName": "*", "Modality": ""}},
    ],
)
def test_a_request_that_names_no_studies_or_all_of_them_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PullRequest("archive", **values)  # type: ignore[arg-type]


def test_each_value_is_a_query_of_its_own_and_asked_once() -> None:
    request = PullRequest("archive", accession_numbers=("A1", "A2", "A1"))

    assert request.keys() == ({"AccessionNumber": "A1"}, {"AccessionNumber": "A2"})
    assert PullRequest("archive", query={"Modality": "CT", "StudyDate": "20240101"}).keys() == (
        {"Modality": "CT", "StudyDate": "20240101"},
    )


def test_only_equal_requests_share_a_fingerprint_in_any_order() -> None:
    one = PullRequest("archive", study_uids=("1.2", "1.3"))

    assert one.fingerprint() == PullRequest("archive", study_uids=("1.3", "1.2", "1.3")).fingerprint()
    others = [
        PullRequest("archive", study_uids=("1.2",)),
        PullRequest("other", study_uids=("1.2", "1.3")),
        PullRequest("archive", study_uids=("1.2", "1.3"), skip_existing=True),
        PullRequest("archive", patient_ids=("1.2", "1.3")),
    ]
    assert len({one.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_everything_done_means_nothing_incomplete_empty_or_failed() -> None:
    assert JobEnded(1, complete=3).all_complete
    assert not any(one.all_complete for one in (JobEnded(1, empty=1), JobEnded(1, failed=1), JobEnded(None, error="x")))
