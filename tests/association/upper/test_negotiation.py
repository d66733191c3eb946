"""Which presentation contexts are accepted, and how A-ASSOCIATE is read and written."""

from __future__ import annotations

import logging
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import AllTransferSyntaxes
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.presentation import AllStoragePresentationContexts

from gateway.association.scp.handshake import answer, check
from gateway.association.upper.associate import AssociateRequest, decode_accept, decode_request, encode_accept, encode_request
from gateway.association.upper.contexts import MAX_CONTEXTS, STORAGE_COMMITMENT, STUDY_ROOT_FIND, VERIFICATION, ProposedContext
from gateway.association.upper.negotiation import (
    AS_PROPOSED,
    COMPRESSED_FIRST,
    J2K_FIRST,
    ORDERS,
    UNCOMPRESSED_FIRST,
    Negotiated,
    is_storage,
    negotiate,
)
from gateway.core.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.core.errors import AssociationRejected, ProtocolError
from tests.support.raw import APPLICATION_CONTEXT, CT, associate_rq, item, pdu, user_information
from tests.support.steps import steps

J2K_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
GE_PRIVATE = "1.2.840.113619.5.2"


def request(*contexts: ProposedContext) -> AssociateRequest:
    return decode_request(encode_request("PEER", "GATEWAY", contexts, max_pdu_bytes=16384)[6:])


def negotiated(*contexts: ProposedContext, order: tuple[str, ...] = J2K_FIRST) -> Negotiated:
    return negotiate(request(*contexts), order)


def chosen(abstract: str, *syntaxes: str, order: tuple[str, ...] = J2K_FIRST) -> str | int:
    """Return the transfer syntax that is accepted, or the result of the refusal."""
    (result,) = negotiated(ProposedContext(abstract, syntaxes), order=order).results
    return result.transfer_syntax if result.result == 0 else result.result


def test_what_a_requestor_proposes_is_read_by_an_acceptor() -> None:
    read = request(ProposedContext(CT, (EXPLICIT_LE, IMPLICIT_LE)), ProposedContext(VERIFICATION, (IMPLICIT_LE,)))
    assert (read.calling_ae, read.called_ae, read.application_context) == ("PEER", "GATEWAY", APPLICATION_CONTEXT)
    assert [(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in read.contexts] == [
        (1, CT, (EXPLICIT_LE, IMPLICIT_LE)),
        (3, VERIFICATION, (IMPLICIT_LE,)),
    ]
    assert read.user.max_pdu_bytes == 16384


@pytest.mark.parametrize(
    ("order", "first"), [(J2K_FIRST, J2K_LOSSLESS), (UNCOMPRESSED_FIRST, EXPLICIT_LE), (COMPRESSED_FIRST, J2K_LOSSLESS)]
)
def test_our_order_decides_not_the_peers(order: tuple[str, ...], first: str) -> None:
    assert chosen(CT, IMPLICIT_LE, JPEG_BASELINE, EXPLICIT_LE, J2K_LOSSLESS, order=order) == first


@pytest.mark.parametrize(
    ("proposed", "taken"),
    [
        ((IMPLICIT_LE, EXPLICIT_LE), IMPLICIT_LE),
        ((EXPLICIT_LE, IMPLICIT_LE), EXPLICIT_LE),
        ((JPEG_BASELINE, J2K_LOSSLESS, EXPLICIT_LE), JPEG_BASELINE),
        ((GE_PRIVATE, IMPLICIT_LE, J2K_LOSSLESS), IMPLICIT_LE),
        ((J2K_LOSSLESS,), J2K_LOSSLESS),
        ((GE_PRIVATE,), 4),
    ],
)
def test_as_proposed_takes_what_the_peer_names_first(proposed: tuple[str, ...], taken: str | int) -> None:
    assert chosen(CT, *proposed, order=AS_PROPOSED) == taken


def test_as_proposed_answers_each_context_of_a_sop_class_by_itself() -> None:
    found = negotiated(ProposedContext(CT, (IMPLICIT_LE, EXPLICIT_LE)), ProposedContext(CT, (EXPLICIT_LE,)), order=AS_PROPOSED)
    assert [one.transfer_syntax for one in found.results] == [IMPLICIT_LE, EXPLICIT_LE]


def test_a_sop_class_may_have_an_order_of_its_own() -> None:
    both = request(ProposedContext(CT, (IMPLICIT_LE, EXPLICIT_LE)), ProposedContext(DOSE, (IMPLICIT_LE, EXPLICIT_LE)))
    found = negotiate(both, J2K_FIRST, ((DOSE, AS_PROPOSED),))
    assert [one.transfer_syntax for one in found.results] == [EXPLICIT_LE, IMPLICIT_LE]
    found = negotiate(both, AS_PROPOSED, ((DOSE, UNCOMPRESSED_FIRST), (VERIFICATION, AS_PROPOSED)))
    assert [one.transfer_syntax for one in found.results] == [IMPLICIT_LE, EXPLICIT_LE]


@pytest.mark.parametrize("order", [J2K_FIRST, AS_PROPOSED])
def test_other_services_are_answered_the_same_in_every_order(order: tuple[str, ...]) -> None:
    assert chosen(VERIFICATION, IMPLICIT_LE, order=order) == IMPLICIT_LE
    assert chosen(STUDY_ROOT_FIND, IMPLICIT_LE, order=order) == 3


def test_a_source_is_not_led_to_compress_with_loss() -> None:
    assert chosen(CT, JPEG_BASELINE, IMPLICIT_LE) == IMPLICIT_LE
    assert chosen(CT, JPEG_BASELINE) == JPEG_BASELINE
    assert chosen(CT, JPEG_BASELINE, IMPLICIT_LE, order=COMPRESSED_FIRST) == JPEG_BASELINE


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_every_transfer_syntax_of_the_standard_is_in_every_order_once(order: tuple[str, ...]) -> None:
    assert len(set(order)) == len(order)
    assert {str(syntax) for syntax in AllTransferSyntaxes} <= set(order)
    assert {"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.1.99"} <= set(order)


@pytest.mark.parametrize("syntax", J2K_FIRST)
def test_each_transfer_syntax_is_accepted_where_it_comes_alone(syntax: str) -> None:
    assert chosen(CT, syntax) == syntax


def test_every_storage_sop_class_is_accepted() -> None:
    assert all(is_storage(str(context.abstract_syntax)) for context in AllStoragePresentationContexts)


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.113619.4.27", "1.3.46.670589.2.4.1.1", "1.2.840.10008.5.1.4.1.1.999.1", "1.2.840.10008.5.1.1.27"]
)
def test_private_newer_and_retired_sop_classes_are_stored_too(sop_class: str) -> None:
    assert chosen(sop_class, EXPLICIT_LE) == EXPLICIT_LE


@pytest.mark.parametrize(
    "sop_class", [STUDY_ROOT_FIND, "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.1.9", EXPLICIT_LE]
)
def test_other_services_are_refused(sop_class: str) -> None:
    assert chosen(sop_class, IMPLICIT_LE) == 3


def test_private_transfer_syntaxes_are_never_accepted() -> None:
    assert chosen(CT, GE_PRIVATE, IMPLICIT_LE) == IMPLICIT_LE
    assert chosen(CT, GE_PRIVATE) == 4


def test_the_same_sop_class_may_be_proposed_once_for_each_transfer_syntax() -> None:
    answer = negotiated(
        ProposedContext(CT, (JPEG_BASELINE,)), ProposedContext(CT, (EXPLICIT_LE,)), ProposedContext(CT, (J2K_LOSSLESS,))
    )
    assert [context.transfer_syntax for context in answer.accepted.values()] == [JPEG_BASELINE, EXPLICIT_LE, J2K_LOSSLESS]


def test_verification_and_commitment_are_little_endian_only() -> None:
    assert chosen(VERIFICATION, IMPLICIT_LE, EXPLICIT_LE) == EXPLICIT_LE
    assert chosen(VERIFICATION, J2K_LOSSLESS) == 4


@pytest.mark.parametrize(
    ("abstract", "proposed", "granted"),
    [
        (STORAGE_COMMITMENT, (False, True), (False, True)),
        (STORAGE_COMMITMENT, (True, True), (True, True)),
        (STORAGE_COMMITMENT, (True, False), (True, False)),
        (CT, (True, True), (True, False)),
        (CT, (True, False), (True, False)),
    ],
)
def test_a_peer_may_report_commitment_and_otherwise_only_ask(
    abstract: str, proposed: tuple[bool, bool], granted: tuple[bool, bool]
) -> None:
    answer = negotiated(ProposedContext(abstract, (IMPLICIT_LE,), scu_role=proposed[0], scp_role=proposed[1]))
    assert answer.results[0].result == 0
    assert answer.roles == {abstract: granted}


def test_a_peer_that_wants_to_be_scp_of_storage_is_refused() -> None:
    assert negotiated(ProposedContext(CT, (IMPLICIT_LE,), scp_role=True)).results[0].result == 1


def test_the_answer_is_readable_and_gives_the_titles_back_byte_for_byte() -> None:
    wire = associate_rq("  PEER", "GATEWAY\0", [(1, CT, (EXPLICIT_LE,)), (5, STUDY_ROOT_FIND, (IMPLICIT_LE,))])
    asked = decode_request(wire[6:])
    answer = negotiate(asked, J2K_FIRST)
    accept = encode_accept(asked, answer.results, answer.roles, max_pdu_bytes=131072)
    read = A_ASSOCIATE_AC()
    read.decode(accept)
    assert [(context.context_id, context.result) for context in read.presentation_context] == [(1, 0), (5, 3)]
    assert read.user_information is not None
    assert read.user_information.maximum_length == 131072
    assert accept[10:42] == wire[10:42]


def test_what_we_propose_is_what_the_standard_has() -> None:
    ours = encode_request(
        "PEER", "GATEWAY", [ProposedContext(STORAGE_COMMITMENT, (IMPLICIT_LE, EXPLICIT_LE), scp_role=True)], max_pdu_bytes=16384
    )
    begin = associate_rq("PEER", "GATEWAY", [(1, STORAGE_COMMITMENT, (IMPLICIT_LE, EXPLICIT_LE))])
    begin = begin[6 : begin.index(b"\x50\0")]
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    user += item(0x54, struct.pack(">H", len(STORAGE_COMMITMENT)) + STORAGE_COMMITMENT.encode() + b"\0\1")
    user += item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    assert ours == pdu(1, begin + item(0x50, user))


@pytest.mark.parametrize(
    ("calling", "abstract", "syntaxes", "count"),
    [
        ("", CT, (EXPLICIT_LE,), 1),
        ("A\nB", CT, (EXPLICIT_LE,), 1),
        ("A" * 17, CT, (EXPLICIT_LE,), 1),
        ("Ä", CT, (EXPLICIT_LE,), 1),
        ("PEER", "1.2.*", (EXPLICIT_LE,), 1),
        ("PEER", "1.2\n3", (EXPLICIT_LE,), 1),
        ("PEER", "1" * 257, (EXPLICIT_LE,), 1),
        ("PEER", CT, ("1" * 65,), 1),
        ("PEER", CT, (EXPLICIT_LE,), 0),
        ("PEER", CT, (EXPLICIT_LE,), MAX_CONTEXTS + 1),
    ],
)
def test_what_cannot_be_proposed_is_an_error_before_anything_is_sent(
    calling: str, abstract: str, syntaxes: tuple[str, ...], count: int
) -> None:
    with pytest.raises(ValueError):
        encode_request(calling, "GATEWAY", [ProposedContext(abstract, syntaxes)] * count, max_pdu_bytes=16384)


@pytest.mark.parametrize(
    ("abstract", "proposed", "granted"),
    [
        (STORAGE_COMMITMENT, (False, True), (False, True)),
        (STORAGE_COMMITMENT, (True, True), (True, True)),
        (CT, (True, True), (True, False)),
        (CT, (False, False), (True, False)),
    ],
)
def test_both_sides_agree_on_the_roles(abstract: str, proposed: tuple[bool, bool], granted: tuple[bool, bool]) -> None:
    contexts = [ProposedContext(abstract, (IMPLICIT_LE,), scu_role=proposed[0], scp_role=proposed[1])]
    asked = request(*contexts)
    answer = negotiate(asked, J2K_FIRST)
    (theirs,) = decode_accept(encode_accept(asked, answer.results, answer.roles, max_pdu_bytes=16384)[6:], contexts).accepted
    assert theirs == answer.accepted[1]
    assert (theirs.as_scu, theirs.as_scp) == granted


def raw_request(*items: bytes, called: bytes = b"GATEWAY", calling: bytes = b"PEER", version: int = 1) -> bytes:
    head = struct.pack(">Hxx16s16s32x", version, called.ljust(16), calling.ljust(16))
    return head + item(0x10, APPLICATION_CONTEXT.encode()) + b"".join(items) + user_information(16384)


def raw_context(number: int, abstract: bytes, *syntaxes: bytes) -> bytes:
    return item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes))


GOOD = raw_context(7, CT.encode(), EXPLICIT_LE.encode())


@pytest.mark.parametrize(
    "bad",
    [
        raw_context(1, b"1" * 257, IMPLICIT_LE.encode()),
        raw_context(1, b"1.2.*", IMPLICIT_LE.encode()),
        raw_context(1, CT.encode(), b"Implicit VR"),
        raw_context(1, b"1.2\n3", IMPLICIT_LE.encode()),
        raw_context(1, CT.encode() + b"\n", IMPLICIT_LE.encode()),
        raw_context(1, b"\t" + CT.encode(), IMPLICIT_LE.encode()),
        raw_context(1, CT.encode(), IMPLICIT_LE.encode() + b"\n"),
        raw_context(1, CT.encode() + b"\0x", IMPLICIT_LE.encode()),
        raw_context(1, b"\xff\xfe", IMPLICIT_LE.encode()),
        raw_context(1, b"", IMPLICIT_LE.encode()),
        raw_context(1, CT.encode(), b"9" * 65),
        raw_context(1, CT.encode()),
        item(0x20, bytes([1, 0, 0, 0])),
        item(0x20, bytes([1, 0, 0, 0]) + item(0x77, b"unknown")),
    ],
)
def test_a_context_that_nobody_can_read_costs_the_peer_only_that_context(bad: bytes) -> None:
    answer = negotiate(decode_request(raw_request(bad, GOOD)), J2K_FIRST)
    assert [context.context_id for context in answer.accepted.values()] == [7]
    assert answer.results[1].result == 0
    assert answer.results[0].result in (3, 4)


@pytest.mark.parametrize(
    "odd",
    [
        item(0x99, b"unknown"),
        item(0x20, b""),
        item(0x20, bytes([1, 0, 0, 0]) + b"\x30\x00\xff\xff"),
        raw_context(2, CT.encode(), EXPLICIT_LE.encode()),
    ],
)
def test_items_that_cannot_be_answered_are_passed_over(odd: bytes) -> None:
    assert [context.context_id for context in decode_request(raw_request(odd, GOOD)).contexts] == [7]


def test_of_an_id_used_twice_the_first_counts() -> None:
    twice = raw_context(7, STUDY_ROOT_FIND.encode(), IMPLICIT_LE.encode())
    assert [context.abstract_syntax for context in decode_request(raw_request(GOOD, twice)).contexts] == [CT]


def test_unknown_items_are_passed_over_at_every_depth() -> None:
    unknown = item(0x99, b"unknown") + item(0x00, b"")
    context = item(0x20, bytes([7, 0, 0, 0]) + unknown + item(0x30, CT.encode()) + unknown + item(0x40, EXPLICIT_LE.encode()))
    user = item(0x50, unknown + item(0x58, b"\2\0\0\4user\0\4word") + item(0x51, struct.pack(">I", 1000)) + unknown)
    read = decode_request(raw_request()[:68] + unknown + item(0x10, APPLICATION_CONTEXT.encode()) + context + unknown + user)
    assert [(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in read.contexts] == [(7, CT, (EXPLICIT_LE,))]
    assert (read.application_context, read.user.max_pdu_bytes) == (APPLICATION_CONTEXT, 1000)


@pytest.mark.parametrize("uid", [CT.encode() + b"\0", CT.encode() + b" ", CT.encode() + b" \0"])
def test_a_padded_uid_is_a_uid(uid: bytes) -> None:
    assert (
        decode_request(raw_request(raw_context(1, uid, IMPLICIT_LE.encode() + b"\0"))).contexts
        == request(ProposedContext(CT, (IMPLICIT_LE,))).contexts
    )


def test_leading_zeros_do_not_make_a_sop_class_less_private() -> None:
    answer = negotiate(decode_request(raw_request(raw_context(1, b"1.2.840.0113619.04", EXPLICIT_LE.encode()))), J2K_FIRST)
    assert answer.accepted[1].abstract_syntax == "1.2.840.0113619.04"


def test_nothing_that_a_stranger_sends_is_logged_or_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pynetdicom")
    caplog.set_level(logging.DEBUG, "pydicom")
    odd = [b"1" * 65, b"DOE^JOHN", b"1.02.3", b"1.2\n3", b"\xff\xfe", b"", b"1.2.840.10008.1.2.1.1"]
    contexts = [raw_context(number, uid, uid) for number, uid in zip(range(1, 99, 2), odd, strict=False)]
    users = [item(0x50, item(0x55, uid) + item(0x52, uid) + item(0x54, b"\0\7" + uid + b"\1\1") + item(0x51, uid)) for uid in odd]
    for user in users:
        asked = decode_request(raw_request(*contexts, user, calling=b"\xff\xfe", called=b" "))
        negotiate(asked, J2K_FIRST)
        accept = raw_request(item(0x21, bytes([1, 0, 0, 0]) + item(0x40, b"DOE^JOHN")), user, calling=b"\xff")
        decode_accept(accept, [ProposedContext(CT, (EXPLICIT_LE,))])
    assert not caplog.records


@pytest.mark.parametrize("body", [b"", bytes(67), raw_request() + b"\x20\0", raw_request() + b"\x20\0\xff\xff"])
def test_a_request_that_is_cut_off_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(body)


def test_an_equal_proposal_is_decoded_once_and_a_long_one_is_not_cached() -> None:
    again = raw_request(GOOD)
    assert decode_request(bytes(bytearray(again))) is decode_request(again)
    long = raw_request(GOOD, *(item(0x7F, bytes(60000)),))
    assert decode_request(long) == decode_request(long)
    assert decode_request(long) is not decode_request(long)


def test_another_order_of_transfer_syntaxes_has_another_answer() -> None:
    both = raw_request(raw_context(1, CT.encode(), IMPLICIT_LE.encode(), J2K_LOSSLESS.encode()))
    first, second = (answer(both, order, 16384)[0][1].transfer_syntax for order in (J2K_FIRST, UNCOMPRESSED_FIRST))
    assert (first, second) == (J2K_LOSSLESS, IMPLICIT_LE)


UIDS = [
    b"",
    b"1.2",
    b"1.02",
    b"1" * 65,
    b"\0",
    b" ",
    b"../x",
    b"\xff",
    CT.encode(),
    EXPLICIT_LE.encode(),
    STORAGE_COMMITMENT.encode(),
]


def bodies(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Items of every type, known and unknown, around `children`, some with a length that is a lie."""
    inside = st.lists(children, max_size=4).map(b"".join)
    heads = st.sampled_from([b"", b"\1\0\0\0", b"\3\0\1\0", b"\2\0\0\0", b"\0\5", b"\0\x15"])
    tails = st.sampled_from([b"", b"\1", b"\1\1", b"\0\2"])
    whole = st.builds(lambda number, *parts: item(number, b"".join(parts)), st.integers(0x0F, 0x5A), heads, inside, tails)
    return whole | whole.map(lambda data: data[:-1])


ITEMS = st.recursive(st.sampled_from(UIDS) | st.binary(max_size=20), bodies, max_leaves=12)


@given(st.binary(max_size=400) | st.lists(ITEMS, max_size=6).map(b"".join))
def test_no_bytes_do_more_than_be_refused(tail: bytes) -> None:
    try:
        asked = decode_request(raw_request()[:68] + tail)
    except ProtocolError:
        return
    answer = negotiate(asked, J2K_FIRST)
    assert encode_accept(asked, answer.results, answer.roles, max_pdu_bytes=131072)


@given(st.binary(max_size=100))
def test_no_titles_do_more_than_be_refused(head: bytes) -> None:
    try:
        check(decode_request(head + raw_request(GOOD)[len(head) :]))
    except (ProtocolError, AssociationRejected):
        return


@given(st.binary(max_size=400) | st.lists(ITEMS, max_size=6).map(b"".join), st.booleans(), st.booleans())
def test_no_answer_does_more_than_be_refused(tail: bytes, scu: bool, scp: bool) -> None:
    contexts = [ProposedContext(uid, (EXPLICIT_LE,), scu_role=scu, scp_role=scp) for uid in (CT, STORAGE_COMMITMENT)]
    try:
        accept = decode_accept(raw_request()[:68] + tail, contexts)
    except ProtocolError:
        return
    assert len(accept.accepted) + len(accept.refused) == 2


def test_twice_as_many_transfer_syntaxes_take_twice_the_steps() -> None:
    def taken(count: int) -> int:
        many = [f"1.2.{number}".encode() for number in range(10_000, 10_000 + count)]
        body = raw_request(*(raw_context(number, CT.encode(), *many) for number in (1, 3, 5)))
        return steps(lambda: negotiate(decode_request(body), J2K_FIRST))

    assert taken(2000) < 2.2 * taken(1000)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (raw_request(GOOD, version=2), (1, 2, 2)),
        (raw_request(GOOD, called=b"\0" * 16), (1, 1, 7)),
        (raw_request(GOOD, calling=b" " * 16), (1, 1, 3)),
        (raw_request(GOOD, calling=b"A\nB"), (1, 1, 3)),
        (raw_request(GOOD, calling=b"A\0B"), (1, 1, 3)),
        (raw_request(GOOD, calling=b"\xff\xfe\xfd"), (1, 1, 3)),
        (raw_request(GOOD, called=b"A\\B"), (1, 1, 7)),
        (raw_request(GOOD)[:68] + item(0x10, b"1.2.3") + GOOD + user_information(1), (1, 1, 2)),
    ],
)
def test_what_no_admission_has_to_decide_on_is_rejected(body: bytes, answer: tuple[int, int, int]) -> None:
    with pytest.raises(AssociationRejected) as rejected:
        check(decode_request(body))
    assert (rejected.value.result, rejected.value.source, rejected.value.reason) == answer


def test_titles_padded_with_nul_are_titles() -> None:
    asked = decode_request(raw_request(GOOD, called=b"GATEWAY\0\0", calling=b"PEER".ljust(16, b"\0")))
    check(asked)
    assert (asked.called_ae, asked.calling_ae) == ("GATEWAY", "PEER")
