"""Contexts proposed for a C-GET, and the associations that they need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.association.scu.offers import GET_CONTEXT, MAX_CLASSES, STORAGE_CONTEXTS, USUAL_SYNTAXES, offers
from gateway.association.upper.associate import encode_request
from gateway.association.upper.contexts import STORAGE_SOP_CLASSES, VERIFICATION
from gateway.association.upper.negotiation import J2K_FIRST, ORDERS, STORAGE, UNCOMPRESSED, UNCOMPRESSED_FIRST

CT = "1.2.840.10008.5.1.4.1.1.2"
RETIRED_US = "1.2.840.10008.5.1.4.1.1.6"
PRIVATE = "1.2.276.0.7230010.3.1.0.1"

classes = st.sets(st.sampled_from([*STORAGE_SOP_CLASSES, PRIVATE]), min_size=1, max_size=40)
orders = st.sampled_from(list(ORDERS.values()))


@given(classes, orders)
def test_every_class_is_offered_in_every_transfer_syntax_once(sop_classes: set[str], order: tuple[str, ...]) -> None:
    contexts = [context for offer in offers(sop_classes, order) for context in offer[1:]]
    assert all(len(context.transfer_syntaxes) == 1 and context.scp_role for context in contexts)
    pairs = [(context.abstract_syntax, context.transfer_syntaxes[0]) for context in contexts]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(sop_class, syntax) for sop_class in sop_classes for syntax in order}


@given(st.none() | classes, orders)
def test_each_association_can_be_asked_for(sop_classes: set[str] | None, order: tuple[str, ...]) -> None:
    for offer in offers(sop_classes, order):
        assert offer[0] == GET_CONTEXT
        assert 2 <= len(offer) <= STORAGE_CONTEXTS + 1
    assert encode_request("GATEWAY", "ARCHIVE", offers(sop_classes, order)[0], max_pdu_bytes=131072)


@given(st.sets(st.sampled_from(STORAGE_SOP_CLASSES), min_size=1, max_size=MAX_CLASSES), orders)
def test_what_is_usual_fits_on_the_first_association(sop_classes: set[str], order: tuple[str, ...]) -> None:
    first = {(context.abstract_syntax, context.transfer_syntaxes[0]) for context in offers(sop_classes, order)[0][1:]}
    assert first >= {(sop_class, syntax) for sop_class in sop_classes for syntax in USUAL_SYNTAXES}


def test_the_order_of_the_transfer_syntaxes_is_that_of_the_contexts() -> None:
    """There are sources that send in the first context of a SOP class that they find."""
    (j2k, *_), (uncompressed, *_) = (offers([CT], order)[0][1:] for order in (J2K_FIRST, UNCOMPRESSED_FIRST))
    assert (j2k.transfer_syntaxes, uncompressed.transfer_syntaxes) == ((J2K_FIRST[0],), (UNCOMPRESSED[0],))


@given(orders)
def test_of_unknown_classes_all_are_offered_uncompressed_and_compressed(order: tuple[str, ...]) -> None:
    contexts = [context for offer in offers(None, order) for context in offer[1:]]
    assert {context.abstract_syntax for context in contexts} == set(STORAGE) >= {RETIRED_US, *STORAGE_SOP_CLASSES}
    assert all(len(context.transfer_syntaxes) <= 50 for context in contexts), "DCMTK takes no more"
    for sop_class in (CT, RETIRED_US):
        mine = [context.transfer_syntaxes for context in contexts if context.abstract_syntax == sop_class]
        assert {syntax for syntaxes in mine for syntax in syntaxes} == USUAL_SYNTAXES
        assert [set(syntaxes) <= set(UNCOMPRESSED) for syntaxes in mine].count(True) == 1


def test_what_is_no_storage_is_not_offered() -> None:
    assert offers([VERIFICATION, "", "1.2.*", "1.2\\1.3", "\xe9"], J2K_FIRST) == offers([], J2K_FIRST) == []
