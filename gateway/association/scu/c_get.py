"""The other half of a C-GET: the C-STORE requests that come on the association on which it was asked (PS3.4 §C.4.3, PS3.7 §9.1.3).

The peer is the SCU of storage there, and we its SCP, as the acceptor is on associations that peers ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from gateway.association.dimse.message import Message
from gateway.association.dimse.services import StoreRequest
from gateway.association.dimse.storing import Storing
from gateway.association.upper.contexts import AcceptedContext
from gateway.association.upper.negotiation import is_storage
from gateway.association.upper.pdu import INVALID_PDU_PARAMETER
from gateway.core.errors import ProtocolError


def sub_operation_contexts(accepted: Iterable[AcceptedContext]) -> dict[int, AcceptedContext]:
    """Return the contexts in which instances may come, by ID.

    Those too in which the peer granted no role: there are peers that send without a word about roles, and an instance that comes
    is not refused for that.
    """
    return {context.context_id: context for context in accepted if is_storage(context.abstract_syntax)}


def sub_operation(storing: Storing, contexts: Mapping[int, AcceptedContext], message: Message) -> int:
    """Take the instance that `message` announces and return the status to answer.

    Raises:
        ProtocolError: it came in a context of another service, or cannot be answered.
    """
    context = contexts.get(message.context_id)
    if context is None or "MessageID" not in message.command:
        raise ProtocolError("a C-STORE in a context that is not for storage, or without Message ID", reason=INVALID_PDU_PARAMETER)
    return storing.store(context, message)


def originated(ae_title: str, message_id: int, request: StoreRequest) -> StoreRequest:
    """Return `request` with the C-GET that it is a sub-operation of for its originator, as a C-MOVE's has it in its command."""
    return replace(request, move_originator_ae=ae_title, move_originator_message_id=message_id)
