"""The PDUs that a peer may send, and when: the receiving half of the upper layer's state machine (PS3.8 §9.2). Pure.

Only the states in which something is awaited are here; what is sent is up to the caller.
"""

from __future__ import annotations

from enum import Enum

from gateway.association.upper.pdu import UNEXPECTED_PDU, PduType
from gateway.core.errors import ProtocolError


class State(Enum):
    """The state of an association, by what is awaited next; the numbers are those of PS3.8 §9.2.1."""

    AWAITING_REQUEST = "Sta2"
    AWAITING_ANSWER = "Sta5"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE = "Sta7"
    RELEASING = "Sta8"
    """The peer asked for release: our A-RELEASE-RP is due."""

    COLLISION = "Sta11"
    """Both sides asked for release: the requestor answers (Sta9), then awaits the peer's answer."""

    CLOSED = "Sta13"
    """Nothing that comes now counts; the connection is about to be closed."""


_RECEIVED: dict[State, dict[PduType, State]] = {
    State.AWAITING_REQUEST: {PduType.ASSOCIATE_RQ: State.ESTABLISHED, PduType.ABORT: State.CLOSED},
    State.AWAITING_ANSWER: {
        PduType.ASSOCIATE_AC: State.ESTABLISHED,
        PduType.ASSOCIATE_RJ: State.CLOSED,
        PduType.ABORT: State.CLOSED,
    },
    State.ESTABLISHED: {
        PduType.P_DATA: State.ESTABLISHED,
        PduType.RELEASE_RQ: State.RELEASING,
        PduType.ABORT: State.CLOSED,
    },
    State.AWAITING_RELEASE: {
        PduType.P_DATA: State.AWAITING_RELEASE,
        PduType.RELEASE_RP: State.CLOSED,
        PduType.RELEASE_RQ: State.COLLISION,
        PduType.ABORT: State.CLOSED,
    },
    State.RELEASING: {PduType.ABORT: State.CLOSED},
    State.COLLISION: {PduType.RELEASE_RP: State.CLOSED, PduType.ABORT: State.CLOSED},
    State.CLOSED: dict.fromkeys(PduType, State.CLOSED),
}


def received(state: State, kind: PduType) -> State:
    """Return the state after a PDU of `kind` came in `state` (PS3.8 Table 9-10).

    Raises:
        ProtocolError: the PDU may not come now; its reason is the one for the A-ABORT that follows (AA-8).
    """
    following = _RECEIVED[state].get(kind)
    if following is None:
        raise ProtocolError(f"a PDU {kind.name} while {state.name.lower().replace('_', ' ')}", reason=UNEXPECTED_PDU)
    return following
