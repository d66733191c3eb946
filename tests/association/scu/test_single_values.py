"""A value that names one study is compared as it stands; what else a source answers is passed over and can be told."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from gateway.association.scu.query import contradicts
from gateway.core.single_values import SingleValue, how_passed_over, passed_over


def answered(**values: str) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("asked", "found", "same"),
    [
        ("A1*", "A1*", True),
        ("A1*", "A17", False),
        ("A1*", "A1", False),
        ("A?7", "A17", False),
        ("A?7", "A?7", True),
        ("P*1", "PX1", False),
        ("P*1", "", False),
        ("A^1", "A^1", True),
        ("A^1", "A 1", False),
        ("abc", "ABC", False),
        ("abc", "abc ", True),
        (" abc ", "abc", True),
        ("abc", "", True),
        ("123", "00123", False),
        ("[A-Z]1", "B1", False),
    ],
)
@pytest.mark.parametrize("keyword", ["AccessionNumber", "PatientID", "StudyID"])
def test_a_single_value_is_taken_as_it_stands(keyword: str, asked: str, found: str, same: bool) -> None:
    keys = {keyword: SingleValue(asked)}

    assert contradicts(answered(**{keyword: found}), keys) is not same
    assert passed_over(keys) == (() if same else (found,))


def test_a_query_of_a_persons_own_keeps_its_wildcards() -> None:
    assert not contradicts(answered(AccessionNumber="A17"), {"AccessionNumber": "A1*"})
    assert not contradicts(answered(PatientID="PX1"), {"PatientID": "P?1"})


def test_how_answers_differ_is_told_without_their_values() -> None:
    keys = {"PatientID": SingleValue("abc1")}
    assert how_passed_over(keys) == ""
    for other in ("ABC1", "Abc1", "00abc1", "abc 1", "xyz", "ABC1"):
        assert contradicts(answered(PatientID=other), keys)

    assert how_passed_over(keys) == (
        "answers were passed over whose value is another one: 2 by case only, 2 by padding only, 1 otherwise"
    )
    assert passed_over(keys) == ("00abc1", "ABC1", "Abc1", "abc 1", "xyz")


def test_a_source_that_answers_without_end_is_not_remembered_without_end() -> None:
    keys = {"PatientID": SingleValue("abc")}
    for number in range(3000):
        contradicts(answered(PatientID=f"P{number}"), keys)
    assert len(passed_over(keys)) == 1000
