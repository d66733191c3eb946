"""Keys matched by ourselves, as PS3.4 §C.2.2.2 says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.archives.places.matching import matches, value_matches


@pytest.mark.parametrize(
    ("keyword", "value", "wanted", "does"),
    [
        ("PatientID", "A1", "", True),
        ("PatientID", "", "*", True),
        ("PatientID", "", "A*", False),
        ("PatientID", "A1", "A1", True),
        ("PatientID", "A1", "a1", False),
        ("PatientID", "A1", "A?", True),
        ("PatientID", "A12", "A?", False),
        ("PatientID", "A.1", "A.?", True),
        ("PatientName", "Müller^Anna", "müller^*", True),
        ("StudyDate", "20240229", "20240229", True),
        ("StudyDate", "2024.02.29", "20240229", True),
        ("StudyDate", "20240229", "20240101-20240229", True),
        ("StudyDate", "20240301", "20240101-20240229", False),
        ("StudyDate", "20240301", "20240101-", True),
        ("StudyDate", "20231231", "-20231231", True),
        ("StudyDate", "", "20240101-20241231", False),
        ("StudyTime", "120000.5", "1200-1200", True),
        ("StudyTime", "120100", "1200-1200", False),
        ("StudyTime", "115959.999", "000000-115959.999999", True),
        ("ModalitiesInStudy", "CT\\SR", "SR", True),
        ("ModalitiesInStudy", "CT\\SR", "MR", False),
        ("StudyInstanceUID", "1.2.3", "1.2\\1.2.3", True),
        ("StudyInstanceUID", "1.2.30", "1.2.3", False),
    ],
)
def test_a_value_matches_as_the_standard_says(keyword: str, value: str, wanted: str, does: bool) -> None:
    assert value_matches(keyword, value, wanted) is does


@given(st.text(), st.text())
def test_whatever_stands_there_is_compared_and_nothing_raises(value: str, wanted: str) -> None:
    assert value_matches("PatientID", value, "") and value_matches("PatientID", value, wanted) in {True, False}


def test_all_keys_have_to_match() -> None:
    values = {"PatientID": "A", "StudyDate": "20240101"}
    assert matches(values, {"PatientID": "A", "StudyDate": "20240101"})
    assert not matches(values, {"PatientID": "A", "AccessionNumber": "1"})
