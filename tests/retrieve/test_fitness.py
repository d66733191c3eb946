"""An arrival agrees with the source's list in study, series, SOP class and transfer syntax; else it is unfit, with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.domain import Basis
from gateway.ledger.jobs.retrievals import Came
from gateway.retrieve.verdict import Expectation, sort, why_unfit

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
J2K, JPEG = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50"
CT, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
CAME = Came("1.2.1.1", 100, "1.2", "1.2.1", CT, EXPLICIT, "", True)
LISTED = Expectation(Basis.UIDS, 1, {"1.2.1.1": "1.2.1"}, ("1.2.1",))


def listed(*syntaxes: str, sop_class: str = CT) -> Expectation:
    told = {"1.2.1.1": frozenset(syntaxes)} if syntaxes else {}
    return replace(LISTED, sop_classes={"1.2.1.1": sop_class} if sop_class else {}, transfer_syntaxes=told)


@pytest.mark.parametrize(
    ("came", "expectation"),
    [
        (CAME, LISTED),
        (CAME, listed(EXPLICIT)),
        (CAME, listed(JPEG, EXPLICIT)),
        (CAME, listed(sop_class="")),
        (replace(CAME, transfer_syntax_uid=IMPLICIT), listed(EXPLICIT)),
        (replace(CAME, transfer_syntax_uid=EXPLICIT), listed(BIG)),
        (replace(CAME, study_instance_uid="", series_instance_uid=""), listed(EXPLICIT)),
        (replace(CAME, sop_instance_uid="1.9", series_instance_uid="1.8"), listed(EXPLICIT)),
    ],
)
def test_what_is_as_listed_or_of_which_nothing_is_told_is_fit(came: Came, expectation: Expectation) -> None:
    assert why_unfit(came, "1.2", expectation) == ""
    assert sort([came], "1.2", expectation).fit == {came.sop_instance_uid: 100}


@pytest.mark.parametrize(
    ("came", "expectation", "reason"),
    [
        (replace(CAME, study_instance_uid="1.3"), LISTED, "inside another study"),
        (replace(CAME, study_instance_uid="1.2.1"), LISTED, "inside another study"),
        (replace(CAME, sop_instance_uid="1.9", study_instance_uid="1.3"), LISTED, "inside another study"),
        (replace(CAME, series_instance_uid="1.2.2"), LISTED, "inside another series than the source lists"),
        (replace(CAME, sop_class_uid=SC), listed(), "as another SOP class than the source lists"),
        (CAME, listed(JPEG), "in another transfer syntax than the source has"),
        (replace(CAME, transfer_syntax_uid=J2K), listed(EXPLICIT), "in another transfer syntax than the source has"),
        (replace(CAME, transfer_syntax_uid=J2K), listed(JPEG), "in another transfer syntax than the source has"),
        (replace(CAME, unfit="with JPEG in it"), LISTED, "with JPEG in it"),
        (replace(CAME, unfit="with JPEG in it", study_instance_uid="1.3"), LISTED, "inside another study"),
    ],
)
def test_what_is_not_as_listed_is_unfit_for_a_reason(came: Came, expectation: Expectation, reason: str) -> None:
    assert why_unfit(came, "1.2", expectation) == reason
    assert sort([came], "1.2", expectation).unfit == {came.sop_instance_uid: reason}


def test_the_newest_content_under_a_uid_decides() -> None:
    wrong = replace(CAME, study_instance_uid="1.3")

    assert sort([replace(wrong, current=False), CAME], "1.2", LISTED).fit == {"1.2.1.1": 100}
    assert sort([replace(CAME, current=False), wrong], "1.2", LISTED).unfit == {"1.2.1.1": "inside another study"}


def test_an_instance_superseded_by_another_retrieval_came_all_the_same() -> None:
    assert sort([replace(CAME, current=False)], "1.2", LISTED).fit == {"1.2.1.1": 100}
