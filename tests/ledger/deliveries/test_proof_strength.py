"""A proof is no better than what is known of what was there before, and of other content."""

import pytest

from gateway.core.domain import Proof
from gateway.ledger.deliveries.proofs import RIVALS, WAS_THERE, Unverified, _as_far_as_known


def item(*, was_there: bool | None, has_rivals: bool) -> Unverified:
    return Unverified(1, "1.2", "1.2.3", "1.2.4", "1.2.5", 0, None, has_rivals, was_there)


@pytest.mark.parametrize("asked", [Proof.EXISTS, Proof.COMMITMENT])
@pytest.mark.parametrize("has_rivals", [False, True])
def test_what_was_there_before_is_proved_as_such(asked: Proof, has_rivals: bool) -> None:
    assert _as_far_as_known(item(was_there=True, has_rivals=has_rivals), asked) == (Proof.BEFORE, WAS_THERE)


@pytest.mark.parametrize("asked", [Proof.EXISTS, Proof.COMMITMENT])
@pytest.mark.parametrize("was_there", [False, None])
def test_what_was_not_there_is_ours_unless_other_content_is_known(asked: Proof, was_there: bool | None) -> None:
    assert _as_far_as_known(item(was_there=was_there, has_rivals=False), asked) == (asked, "")
    assert _as_far_as_known(item(was_there=was_there, has_rivals=True), asked) == (Proof.STATUS, RIVALS)


@pytest.mark.parametrize("asked", [Proof.STATUS, Proof.DIGEST])
@pytest.mark.parametrize("was_there", [False, None, True])
@pytest.mark.parametrize("has_rivals", [False, True])
def test_compared_contents_need_no_list(asked: Proof, was_there: bool | None, has_rivals: bool) -> None:
    assert _as_far_as_known(item(was_there=was_there, has_rivals=has_rivals), asked) == (asked, "")
