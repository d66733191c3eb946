"""What a source lists, from answers that may be partial, contradictory or hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydicom.dataset import Dataset

from gateway.domain import Basis
from gateway.errors import AssociationAborted, DimseFailed, UsageError
from gateway.retrieve.plan import (
    SeriesListing,
    StudyMatch,
    as_values,
    contradicts,
    expectation_of,
    find_studies,
    identifier,
    list_study,
    move_identifier,
)
from gateway.retrieve.repair import Level, Target


def answer(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


class Source:
    """A source that answers each level with what a function gives."""

    def __init__(self, **levels: Callable[[Dataset], list[Dataset]]) -> None:
        self.levels = levels
        self.asked: list[Dataset] = []

    def find(self, identifier: Dataset) -> Iterator[Dataset]:
        self.asked.append(identifier)
        answers = self.levels.get(identifier.QueryRetrieveLevel)
        if answers is None:
            raise DimseFailed("C-FIND", 0xA900)
        yield from answers(identifier)


def two_series(_query: Dataset) -> list[Dataset]:
    return [answer(SeriesInstanceUID=f"1.2.{n}", NumberOfSeriesRelatedInstances=2) for n in (1, 2)]


def two_images(query: Dataset) -> list[Dataset]:
    return [answer(SOPInstanceUID=f"{query.SeriesInstanceUID}.{n}") for n in (1, 2)]


def test_instances_are_listed_series_by_series_never_relationally() -> None:
    source = Source(SERIES=two_series, IMAGE=two_images)

    found = list_study(source, StudyMatch("1.2", 4))

    assert found.basis is Basis.UIDS
    assert found.listed == {"1.2.1.1": "1.2.1", "1.2.1.2": "1.2.1", "1.2.2.1": "1.2.2", "1.2.2.2": "1.2.2"}
    assert (found.count, found.notes) == (4, ())
    images = [query for query in source.asked if query.QueryRetrieveLevel == "IMAGE"]
    assert [(query.StudyInstanceUID, query.SeriesInstanceUID) for query in images] == [("1.2", "1.2.1"), ("1.2", "1.2.2")]


def test_a_source_without_image_level_is_judged_by_its_counts_and_that_is_said() -> None:
    found = list_study(Source(SERIES=two_series), StudyMatch("1.2"))

    assert (found.basis, found.count, found.series) == (Basis.COUNTS, 4, ("1.2.1", "1.2.2"))
    assert "does not answer C-FIND at IMAGE level" in found.notes[0]


def test_a_source_without_series_level_is_judged_by_the_studys_count() -> None:
    assert list_study(Source(), StudyMatch("1.2", 7)).count == 7
    assert list_study(Source(), StudyMatch("1.2")).count is None


def test_a_source_that_answers_image_level_with_nothing_where_it_counts_some_did_not_answer() -> None:
    found = list_study(Source(SERIES=two_series, IMAGE=lambda _query: []), StudyMatch("1.2"))

    assert (found.basis, found.count) == (Basis.COUNTS, 4)


def test_a_broken_association_is_not_taken_for_a_source_without_a_level() -> None:
    def broken(_query: Dataset) -> list[Dataset]:
        raise AssociationAborted("gone")

    with pytest.raises(AssociationAborted):
        list_study(Source(SERIES=two_series, IMAGE=broken), StudyMatch("1.2"))


def test_a_study_whose_series_are_empty_has_no_instance() -> None:
    found = expectation_of(StudyMatch("1.2", 0), [SeriesListing("1.2.1", 0, ())])

    assert (found.basis, found.count, found.empty) == (Basis.UIDS, 0, True)


def test_a_count_that_differs_from_the_list_is_mentioned_and_not_believed() -> None:
    found = expectation_of(StudyMatch("1.2", 14), [SeriesListing("1.2.1", 14, tuple(f"1.2.1.{n}" for n in range(13)))])

    assert (found.basis, found.count) == (Basis.UIDS, 13)
    assert found.notes == ("the source counts 14 instances and lists 13 UIDs",)


def test_hostile_and_foreign_answers_are_passed_over() -> None:
    def studies(_query: Dataset) -> list[Dataset]:
        return [
            answer(StudyInstanceUID="1.2", NumberOfStudyRelatedInstances="3"),
            answer(StudyInstanceUID="1.2"),
            answer(StudyInstanceUID=""),
            answer(AccessionNumber="A1"),
            answer(StudyInstanceUID="1.9", AccessionNumber="OTHER"),
        ]

    assert find_studies(Source(STUDY=studies), {"AccessionNumber": "A1"}) == (StudyMatch("1.2", 3),)


def test_only_exact_values_contradict() -> None:
    found = answer(PatientID="P1 ", StudyDate="20240101", StudyInstanceUID="1.2")

    assert contradicts(found, {"PatientID": "P2"})
    assert not contradicts(found, {"PatientID": "P1"})
    assert not contradicts(found, {"PatientID": "P*"})
    assert not contradicts(found, {"StudyDate": "20230101-20241231"})
    assert not contradicts(found, {"StudyInstanceUID": "1.2\\1.3"})
    assert not contradicts(found, {"AccessionNumber": "A1"})


def test_a_query_says_its_level_its_keys_and_its_character_set() -> None:
    query = identifier("STUDY", {"PatientName": "Müller*", "Modality": "CT"}, ("StudyInstanceUID",))

    assert (query.QueryRetrieveLevel, query.SpecificCharacterSet) == ("STUDY", "ISO_IR 192")
    assert (query.ModalitiesInStudy, query.StudyInstanceUID) == ("CT", "")
    assert "SpecificCharacterSet" not in identifier("STUDY", {"PatientID": "P1"})


@pytest.mark.parametrize("keys", [{"NoSuchKeyword": "1"}, {"PixelData": "1"}, {"SeriesNumber": "one"}])
def test_keys_that_nobody_could_match_are_refused(keys: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        identifier("STUDY", keys)


def test_a_move_names_one_unique_key_a_level() -> None:
    assert "SeriesInstanceUID" not in move_identifier(Target(Level.STUDY, "1.2"))
    series = move_identifier(Target(Level.SERIES, "1.2", "1.2.1"))
    assert (series.StudyInstanceUID, series.SeriesInstanceUID) == ("1.2", "1.2.1")
    image = move_identifier(Target(Level.IMAGE, "1.2", "1.2.1", ("1.2.1.1", "1.2.1.2")))
    assert (image.QueryRetrieveLevel, list(image.SOPInstanceUID)) == ("IMAGE", ["1.2.1.1", "1.2.1.2"])


def test_matches_become_plain_values() -> None:
    found = answer(StudyInstanceUID="1.2", ModalitiesInStudy=["CT", "SR"], StudyDate="")

    assert as_values(found) == {"StudyDate": "", "ModalitiesInStudy": "CT\\SR", "StudyInstanceUID": "1.2"}
