"""The list of a source, from answers that may be partial, contradictory or hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from gateway.association.scu.query import as_values, contradicts, identifier
from gateway.core.domain import Basis
from gateway.core.errors import AssociationAborted, DimseFailed, UsageError
from gateway.retrieve.listing import SeriesListing, expectation_of, find_studies, list_study
from gateway.retrieve.operations import move_identifier
from gateway.retrieve.recovery import Level, Target
from gateway.retrieve.request import Wanted


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

    found = list_study(source, Wanted("1.2", 4))

    assert found.basis is Basis.UIDS
    assert found.listed == {"1.2.1.1": "1.2.1", "1.2.1.2": "1.2.1", "1.2.2.1": "1.2.2", "1.2.2.2": "1.2.2"}
    assert (found.count, found.notes) == (4, ())
    images = [query for query in source.asked if query.QueryRetrieveLevel == "IMAGE"]
    assert [(query.StudyInstanceUID, query.SeriesInstanceUID) for query in images] == [("1.2", "1.2.1"), ("1.2", "1.2.2")]


def test_a_series_that_counts_as_many_as_listed_is_not_listed_again() -> None:
    before = list_study(Source(SERIES=two_series, IMAGE=two_images), Wanted("1.2", 4))
    more = [answer(SeriesInstanceUID="1.2.1", NumberOfSeriesRelatedInstances=2)]
    more += [answer(SeriesInstanceUID="1.2.2", NumberOfSeriesRelatedInstances=3), answer(SeriesInstanceUID="1.2.3")]
    source = Source(SERIES=lambda _query: more, IMAGE=two_images)

    again = list_study(source, Wanted("1.2", 4), before=before)

    assert [query.SeriesInstanceUID for query in source.asked if query.QueryRetrieveLevel == "IMAGE"] == ["1.2.2", "1.2.3"]
    assert again.listed == {**before.listed, "1.2.3.1": "1.2.3", "1.2.3.2": "1.2.3"}


def test_a_series_that_counts_no_instances_is_listed_each_time() -> None:
    series = [answer(SeriesInstanceUID="1.2.1", NumberOfSeriesRelatedInstances=2)]
    series += [answer(SeriesInstanceUID="1.2.2", NumberOfSeriesRelatedInstances=0)]

    def images(query: Dataset) -> list[Dataset]:
        return two_images(query) if query.SeriesInstanceUID == "1.2.1" else []

    source = Source(SERIES=lambda _query: series, IMAGE=images)
    before = list_study(source, Wanted("1.2", 2))
    again = list_study(source, Wanted("1.2", 2), before=before)
    assert (before.basis, before.count, again) == (Basis.UIDS, 2, before)
    asked = [query.SeriesInstanceUID for query in source.asked if query.QueryRetrieveLevel == "IMAGE"]
    assert asked == ["1.2.1", "1.2.2", "1.2.2"]


def test_encodings_are_asked_for_only_where_they_are_needed() -> None:
    source = Source(SERIES=two_series, IMAGE=two_images)
    for wanted in (False, True):
        list_study(source, Wanted("1.2", 4), encodings=wanted)
    images = [query for query in source.asked if query.QueryRetrieveLevel == "IMAGE"]
    assert ["SOPClassUID" in query for query in images] == [False, False, True, True]


def test_the_sop_classes_that_a_source_tells_are_kept() -> None:
    def images(query: Dataset) -> list[Dataset]:
        first, second = two_images(query)
        first.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        second.SOPClassUID = "1.2.*"
        return [first, second]

    found = list_study(Source(SERIES=two_series, IMAGE=images), Wanted("1.2", 4), encodings=True)

    assert found.sop_classes == dict.fromkeys(("1.2.1.1", "1.2.2.1"), "1.2.840.10008.5.1.4.1.1.2")
    assert set(found.listed) == {"1.2.1.1", "1.2.1.2", "1.2.2.1", "1.2.2.2"}
    part = list_study(Source(SERIES=two_series, IMAGE=images), Wanted("1.2", instances=frozenset({"1.2.2.1"})), encodings=True)
    assert part.sop_classes["1.2.2.1"] == "1.2.840.10008.5.1.4.1.1.2"


def test_a_source_without_image_level_is_judged_by_counts_with_a_note() -> None:
    found = list_study(Source(SERIES=two_series), Wanted("1.2"))

    assert (found.basis, found.count, found.series) == (Basis.COUNTS, 4, ("1.2.1", "1.2.2"))
    assert "does not answer C-FIND at IMAGE level" in found.notes[0]


def test_a_source_without_series_level_is_judged_by_the_studys_count() -> None:
    assert list_study(Source(), Wanted("1.2", 7)).count == 7
    assert list_study(Source(), Wanted("1.2")).count is None


def test_an_empty_image_level_answer_against_a_count_is_no_answer() -> None:
    found = list_study(Source(SERIES=two_series, IMAGE=lambda _query: []), Wanted("1.2"))

    assert (found.basis, found.count) == (Basis.COUNTS, 4)


def test_a_broken_association_is_not_taken_for_a_source_without_a_level() -> None:
    def broken(_query: Dataset) -> list[Dataset]:
        raise AssociationAborted("gone")

    with pytest.raises(AssociationAborted):
        list_study(Source(SERIES=two_series, IMAGE=broken), Wanted("1.2"))


def test_a_study_whose_series_are_empty_has_no_instance() -> None:
    found = expectation_of(Wanted("1.2", 0), [SeriesListing("1.2.1", 0, ())])

    assert (found.basis, found.count, found.empty) == (Basis.UIDS, 0, True)


def test_a_count_above_the_list_says_how_many_are_not_listed() -> None:
    found = expectation_of(Wanted("1.2", 14), [SeriesListing("1.2.1", 14, tuple(f"1.2.1.{n}" for n in range(13)))])

    assert (found.basis, found.count) == (Basis.UIDS, 13)
    assert (found.short, found.notes) == ("the source lists fewer than it counts: counted 14, listed 13", ())


def test_hostile_and_foreign_answers_are_passed_over() -> None:
    def studies(_query: Dataset) -> list[Dataset]:
        return [
            answer(StudyInstanceUID="1.2", NumberOfStudyRelatedInstances="3"),
            answer(StudyInstanceUID="1.2"),
            answer(StudyInstanceUID=""),
            answer(AccessionNumber="A1"),
            answer(StudyInstanceUID="1.9", AccessionNumber="OTHER"),
        ]

    assert find_studies(Source(STUDY=studies), {"AccessionNumber": "A1"}).studies == (Wanted("1.2", 3),)


def test_a_study_that_is_listed_under_no_uid_is_not_passed_over() -> None:
    def studies(_query: Dataset) -> list[Dataset]:
        return [answer(StudyInstanceUID="1.2"), unchecked("StudyInstanceUID", "1.2.*"), unchecked("StudyInstanceUID", "1." * 140)]

    assert find_studies(Source(STUDY=studies), {"PatientID": "P1"}).studies == (Wanted("1.2"), Wanted(""))


def unchecked(keyword: str, value: str) -> Dataset:
    """An answer as it comes from the wire: its value is whatever the source made of it."""
    dataset = Dataset()
    dataset[keyword] = DataElement(keyword, "UI", value, validation_mode=IGNORE)
    return dataset


@pytest.mark.parametrize("bad", ["1.2.1.*", "1." * 140, "1.2\n1", "1.2.1.2\\1.2.1.3"])
def test_an_instance_that_is_listed_under_no_uid_makes_the_list_no_proof(bad: str) -> None:
    def images(query: Dataset) -> list[Dataset]:
        return [answer(SOPInstanceUID="1.2.1.1"), unchecked("SOPInstanceUID", bad)]

    found = list_study(Source(SERIES=lambda _query: [answer(SeriesInstanceUID="1.2.1")], IMAGE=images), Wanted("1.2"))

    assert (found.basis, found.count, list(found.listed)) == (Basis.COUNTS, 2, ["1.2.1.1"])
    assert "no UID" in found.notes[0]


def test_a_series_that_is_listed_under_no_uid_makes_the_list_no_proof() -> None:
    def series(_query: Dataset) -> list[Dataset]:
        return [answer(SeriesInstanceUID="1.2.1"), unchecked("SeriesInstanceUID", "1.2.?")]

    source = Source(SERIES=series, IMAGE=two_images)
    found = list_study(source, Wanted("1.2", 5))

    assert (found.basis, found.count, found.series) == (Basis.COUNTS, 5, ("1.2.1",))
    assert expectation_of(Wanted("1.2"), [SeriesListing("1.2.1", None, ("1.2.1.1",)), SeriesListing("", None, None)]).count is None


@pytest.mark.parametrize("odd", ["1.2.ABC", "1.2 3", "1." * 40, "a/b"])
def test_odd_uids_are_listed_as_they_are(odd: str) -> None:
    source = Source(
        STUDY=lambda _query: [unchecked("StudyInstanceUID", odd)],
        SERIES=lambda _query: [unchecked("SeriesInstanceUID", odd)],
        IMAGE=lambda _query: [unchecked("SOPInstanceUID", odd)],
    )
    assert find_studies(source, {"PatientID": "P1"}).studies == (Wanted(odd),)
    found = list_study(source, Wanted(odd))
    assert (found.basis, list(found.listed), found.series) == (Basis.UIDS, [odd], (odd,))


@pytest.mark.parametrize("padded", ["1.2.1.1\0", "1.2.1.1 ", "1.2.1.1 \0", "1.2.1.1\0 ", " 1.2.1.1", "1.2.1.1\0\0"])
def test_a_uid_may_be_padded_oddly(padded: str) -> None:
    source = Source(
        SERIES=lambda _query: [unchecked("SeriesInstanceUID", "1.2.1 ")], IMAGE=lambda _query: [unchecked("SOPInstanceUID", padded)]
    )

    assert list_study(source, Wanted("1.2")).listed == {"1.2.1.1": "1.2.1"}


def test_a_series_without_any_instance_was_not_answered_when_another_was() -> None:
    listings = [SeriesListing("1.2.1", None, ("1.2.1.1",)), SeriesListing("1.2.2", None, ())]

    assert expectation_of(Wanted("1.2"), listings).basis is Basis.COUNTS
    assert expectation_of(Wanted("1.2"), [listings[0], SeriesListing("1.2.2", 0, ())]).basis is Basis.UIDS


def test_a_study_listed_without_series_and_count_is_not_empty() -> None:
    found = expectation_of(Wanted("1.2"), [])

    assert (found.basis, found.count, found.empty) == (Basis.COUNTS, None, False)


def test_a_level_refused_for_now_is_not_taken_for_an_unsupported_one() -> None:
    def busy(_query: Dataset) -> list[Dataset]:
        raise DimseFailed("C-FIND", 0xA700)

    for source in (Source(SERIES=busy), Source(SERIES=two_series, IMAGE=busy)):
        with pytest.raises(DimseFailed):
            list_study(source, Wanted("1.2"))
        assert list_study(source, Wanted("1.2"), busy=True).basis is Basis.COUNTS


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


def test_what_no_keyword_names_alone_is_left_out() -> None:
    found = answer(StudyInstanceUID="1.2")
    found.add_new(0x10000011, "US", 1)  # Run Length Triplet, a repeating group
    found.add_new(0x60020010, "US", 2)
    found.add_new(0x00091001, "LO", "private")

    assert as_values(found) == {"StudyInstanceUID": "1.2"}


@pytest.mark.parametrize(("vr", "value"), [("SQ", [Dataset()]), ("OB", b"1.2")])
def test_a_uid_that_is_none_by_its_vr_is_nothing(vr: str, value: object) -> None:
    found = answer(StudyInstanceUID="1.2")
    found.add_new(0x0020000E, vr, value)

    assert as_values(found) == {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}
