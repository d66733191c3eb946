"""Which PDU may come when (PS3.8 Table 9-10), and the PDUs of fixed form."""

from __future__ import annotations

import pytest

from gateway.association.upper.pdu import PduType, decode_abort, decode_header, decode_reject, encode_abort, encode_reject
from gateway.association.upper.state import State, received
from gateway.core.errors import ProtocolError

GOOD = {
    (State.AWAITING_REQUEST, PduType.ASSOCIATE_RQ): State.ESTABLISHED,
    (State.AWAITING_ANSWER, PduType.ASSOCIATE_AC): State.ESTABLISHED,
    (State.AWAITING_ANSWER, PduType.ASSOCIATE_RJ): State.CLOSED,
    (State.ESTABLISHED, PduType.P_DATA): State.ESTABLISHED,
    (State.ESTABLISHED, PduType.RELEASE_RQ): State.RELEASING,
    (State.AWAITING_RELEASE, PduType.P_DATA): State.AWAITING_RELEASE,
    (State.AWAITING_RELEASE, PduType.RELEASE_RP): State.CLOSED,
    (State.AWAITING_RELEASE, PduType.RELEASE_RQ): State.COLLISION,
    (State.COLLISION, PduType.RELEASE_RP): State.CLOSED,
}


@pytest.mark.parametrize("state", [state for state in State if state is not State.CLOSED])
@pytest.mark.parametrize("kind", list(PduType))
def test_a_pdu_comes_in_its_state_or_is_refused(state: State, kind: PduType) -> None:
    if kind is PduType.ABORT:
        assert received(state, kind) is State.CLOSED
    elif (state, kind) in GOOD:
        assert received(state, kind) is GOOD[state, kind]
    else:
        with pytest.raises(ProtocolError) as error:
            received(state, kind)
        assert error.value.reason == 2


@pytest.mark.parametrize("kind", list(PduType))
def test_nothing_counts_after_the_end(kind: PduType) -> None:
    assert received(State.CLOSED, kind) is State.CLOSED


def test_a_rejection_says_what_it_means() -> None:
    wire = encode_reject(2, 3, 2)
    assert decode_header(wire, 0, max_pdu_bytes=1) == (PduType.ASSOCIATE_RJ, 4)
    rejected = decode_reject(wire[6:])
    assert (rejected.result, rejected.source, rejected.reason, rejected.retryable) == (2, 3, 2, True)
    assert "local limit exceeded" in str(rejected)


def test_an_abort_has_source_and_reason() -> None:
    assert decode_abort(encode_abort(2, 6)[6:]) == (2, 6)
