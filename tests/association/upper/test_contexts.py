"""Which presentation contexts are proposed, and on how many associations."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.association.upper.contexts import (
    MAX_CONTEXTS,
    STORAGE_SOP_CLASSES,
    VERIFICATION,
    ProposedContext,
    plan_contexts,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"

pairs = st.lists(st.tuples(st.sampled_from(STORAGE_SOP_CLASSES), st.sampled_from((EXPLICIT, J2K))), max_size=400)


def test_nothing_to_send_needs_no_association() -> None:
    assert plan_contexts([]) == []


def test_each_transfer_syntax_gets_a_context_of_its_own() -> None:
    plan = plan_contexts([(MR, EXPLICIT), (CT, J2K), (CT, EXPLICIT), (CT, J2K)])
    assert plan == [(ProposedContext(CT, (EXPLICIT,)), ProposedContext(CT, (J2K,)), ProposedContext(MR, (EXPLICIT,)))]


def test_more_than_128_contexts_are_split() -> None:
    plan = plan_contexts((sop_class, EXPLICIT) for sop_class in STORAGE_SOP_CLASSES)
    assert [len(contexts) for contexts in plan] == [MAX_CONTEXTS, len(STORAGE_SOP_CLASSES) - MAX_CONTEXTS]


def test_exactly_128_contexts_fit_on_one_association() -> None:
    assert len(plan_contexts((sop_class, EXPLICIT) for sop_class in STORAGE_SOP_CLASSES[:MAX_CONTEXTS])) == 1


@given(pairs, st.integers(1, MAX_CONTEXTS))
def test_a_plan_holds_every_pair_once_within_the_limit_in_any_order(wanted: list[tuple[str, str]], limit: int) -> None:
    plan = plan_contexts(wanted, limit=limit)
    planned = [(context.abstract_syntax, *context.transfer_syntaxes) for contexts in plan for context in contexts]
    assert sorted(planned) == sorted(set(wanted))
    assert all(1 <= len(contexts) <= limit for contexts in plan)
    assert plan_contexts(random.sample(wanted, len(wanted)), limit=limit) == plan


@pytest.mark.parametrize("limit", [0, -1, 129])
def test_a_limit_that_no_association_can_have_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        plan_contexts([(CT, J2K)], limit=limit)


def test_storage_holds_the_standard_s_classes_each_once() -> None:
    assert CT in STORAGE_SOP_CLASSES
    assert VERIFICATION not in STORAGE_SOP_CLASSES
    assert len(set(STORAGE_SOP_CLASSES)) == len(STORAGE_SOP_CLASSES) >= 170
