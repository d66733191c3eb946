"""Memory of a destination's answers, and the contexts that are proposed to it therefore."""

from __future__ import annotations

import pytest

from gateway.codec.policy import Capabilities, Hold, SendAsIs, TranscodeTo
from gateway.core.domain import Consignment, Content, InstanceIdentity, Mode
from gateway.delivery.adapters.acceptance import REMEMBERED_S, Acceptance
from gateway.delivery.forms import Forms
from gateway.dicom.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, J2K_LOSSLESS, JPEG_BASELINE, RLE_LOSSLESS

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
CAN = Capabilities(frozenset({EXPLICIT_LITTLE, IMPLICIT_LITTLE, J2K_LOSSLESS, RLE_LOSSLESS}), frozenset({J2K_LOSSLESS}))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def consignment(stored: str = EXPLICIT_LITTLE, **values: object) -> Consignment:
    identity = InstanceIdentity(CT, "1.2.3", stored, "1.2", "1.2.1")
    return Consignment(1, 1, "pacs", identity, Content("spool:x", 0, 1, ""), 0, **values)  # type: ignore[arg-type]


def test_nothing_is_known_before_an_answer_and_each_answer_is_of_one_pair(clock: Clock) -> None:
    acceptance = Acceptance(clock=clock)
    acceptance.learn([(CT, EXPLICIT_LITTLE)], [(CT, J2K_LOSSLESS)])
    assert acceptance.accepts((CT, EXPLICIT_LITTLE)) is True
    assert acceptance.accepts((CT, J2K_LOSSLESS)) is False
    assert acceptance.accepts((MR, J2K_LOSSLESS)) is None


def test_a_refusal_counts_for_a_day_and_from_the_first_time(clock: Clock) -> None:
    acceptance = Acceptance(clock=clock)
    acceptance.learn([], [(CT, J2K_LOSSLESS)])
    clock.now += REMEMBERED_S - 1
    acceptance.learn([], [(CT, J2K_LOSSLESS)])
    assert acceptance.accepts((CT, J2K_LOSSLESS)) is False
    clock.now += 2
    assert acceptance.accepts((CT, J2K_LOSSLESS)) is None


def test_the_newest_answer_counts(clock: Clock) -> None:
    acceptance = Acceptance(clock=clock)
    acceptance.learn([(CT, J2K_LOSSLESS)], [])
    acceptance.learn([], [(CT, J2K_LOSSLESS)])
    assert acceptance.accepts((CT, J2K_LOSSLESS)) is False
    acceptance.learn([(CT, J2K_LOSSLESS)], [])
    assert acceptance.accepts((CT, J2K_LOSSLESS)) is True


def test_refusals_outlive_the_process_and_are_told_only_when_they_change(clock: Clock) -> None:
    told: list[str] = []
    acceptance = Acceptance(changed=told.append, clock=clock)
    acceptance.learn([(CT, EXPLICIT_LITTLE)], [(CT, J2K_LOSSLESS)])
    acceptance.learn([(CT, EXPLICIT_LITTLE)], [(CT, J2K_LOSSLESS)])
    assert len(told) == 1
    later = Acceptance(told[-1], changed=told.append, clock=clock)
    assert later.accepts((CT, J2K_LOSSLESS)) is False
    assert later.accepts((CT, EXPLICIT_LITTLE)) is None
    later.forget()
    assert Acceptance(told[-1], clock=clock).accepts((CT, J2K_LOSSLESS)) is None


@pytest.mark.parametrize("text", ["nonsense", "{}", "[[1]]", '[["a", "b", "later"]]'])
def test_what_cannot_be_read_is_asked_anew(text: str) -> None:
    assert Acceptance(text).accepts(("a", "b")) is None


def test_the_stored_syntax_is_offered_first_and_transcodings_beside_it() -> None:
    offers = Forms(can=CAN).offers(consignment())
    assert offers[0] == (CT, EXPLICIT_LITTLE)
    assert {syntax for _, syntax in offers} >= {IMPLICIT_LITTLE, J2K_LOSSLESS}


def test_nothing_else_is_proposed_once_the_best_is_accepted_for_sure() -> None:
    acceptance = Acceptance()
    acceptance.learn([(CT, EXPLICIT_LITTLE)], [])
    assert Forms(can=CAN, acceptance=acceptance).offers(consignment()) == ((CT, EXPLICIT_LITTLE),)
    assert Forms(Mode.J2K_LOSSLESS, can=CAN, acceptance=acceptance).offers(consignment()) == (
        (CT, J2K_LOSSLESS),
        (CT, EXPLICIT_LITTLE),
    )


def test_what_is_refused_is_not_proposed_again() -> None:
    acceptance = Acceptance()
    acceptance.learn([], [(CT, EXPLICIT_LITTLE), (CT, IMPLICIT_LITTLE)])
    offers = Forms(can=CAN, acceptance=acceptance).offers(consignment())
    assert offers[0] == (CT, J2K_LOSSLESS)
    assert Forms(acceptance=acceptance).offers(consignment()) == ()


def test_who_transcodes_nothing_proposes_what_is_stored() -> None:
    assert Forms().offers(consignment(JPEG_BASELINE)) == ((CT, JPEG_BASELINE),)
    assert isinstance(Forms().decide(consignment(), []), Hold)


def test_what_was_chosen_before_goes_before_the_wish() -> None:
    forms = Forms(Mode.J2K_LOSSLESS, can=CAN)
    assert forms.decide(consignment(sent_as=EXPLICIT_LITTLE), None) == SendAsIs()
    assert forms.decide(consignment(sent_as=IMPLICIT_LITTLE), None) == TranscodeTo(IMPLICIT_LITTLE)
    assert forms.decide(consignment(sent_as=IMPLICIT_LITTLE), [J2K_LOSSLESS]) == TranscodeTo(J2K_LOSSLESS)


def test_a_route_wishes_before_the_destination() -> None:
    assert Forms(can=CAN).decide(consignment(mode=Mode.J2K_LOSSLESS), None) == TranscodeTo(J2K_LOSSLESS)
    assert Forms(Mode.J2K_LOSSLESS, can=CAN).decide(consignment(mode=Mode.AS_IS), None) == SendAsIs()


def test_where_one_does_not_do_the_next_that_is_known_to_be_accepted_does() -> None:
    acceptance = Acceptance()
    acceptance.learn([(CT, J2K_LOSSLESS), (CT, IMPLICIT_LITTLE)], [(CT, EXPLICIT_LITTLE)])
    forms = Forms(can=CAN, acceptance=acceptance)
    assert forms.otherwise(consignment(), {J2K_LOSSLESS}) == TranscodeTo(IMPLICIT_LITTLE)
    assert isinstance(forms.otherwise(consignment(), {J2K_LOSSLESS, IMPLICIT_LITTLE}), Hold)
