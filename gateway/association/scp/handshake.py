"""From a new connection to an association: TLS, A-ASSOCIATE-RQ, who may, how many, which contexts (PS3.8 §9.2, §9.3).

Runs on the association's own thread under one deadline, so that a peer which says nothing holds nothing but that thread.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.association.dimse.message import Receiver
from gateway.association.dimse.sender import Sender
from gateway.association.dimse.services import Admission, Admitted, AssociationInfo, Limits
from gateway.association.scp.connections import Connection, Registry
from gateway.association.upper.associate import APPLICATION_CONTEXT, AssociateRequest, decode_request, encode_accept, remembering
from gateway.association.upper.contexts import AcceptedContext
from gateway.association.upper.negotiation import USUAL_CLASSES, ClassOrders, ServedClasses, negotiate
from gateway.association.upper.pdu import rejection
from gateway.association.upper.state import State
from gateway.core.domain import is_ae_title

REJECTED_PERMANENT = 1
REJECTED_TRANSIENT = 2
"""Results of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

BY_SERVICE_USER = 1
BY_ACSE = 2
BY_PRESENTATION = 3
"""Sources of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""


@dataclass(frozen=True, slots=True)
class Established:
    """An association: who it is with, the accepted contexts by ID, and both directions of its messages."""

    info: AssociationInfo
    contexts: Mapping[int, AcceptedContext]
    receiver: Receiver
    sender: Sender


def establish(
    connection: Connection,
    tls: ssl.SSLContext | None,
    *,
    admission: Admission,
    registry: Registry,
    limits: Limits,
    classes: ServedClasses,
) -> Established:
    """Take `connection` through its handshake and answer A-ASSOCIATE-AC; `classes` are those that are served.

    Raises:
        AssociationRejected: it may not associate, or not now; the A-ASSOCIATE-RJ is still to be sent.
        TlsFailed, PeerTimeout, AssociationAborted, ProtocolError: it never got that far.
    """
    stream = connection.stream
    deadline = time.monotonic() + limits.handshake_timeout_s
    if tls is not None:
        stream.secure(tls, deadline=deadline, server_side=True)
    receiver = Receiver(stream, state=State.AWAITING_REQUEST, max_pdu_bytes=limits.max_pdu_bytes, pdu_s=limits.pdu_timeout_s)
    _, body = receiver.receive_pdu(deadline)
    request = decode_request(body)
    check(request)
    names = stream.certificate_names()
    admitted = admission.admit(
        calling_ae=request.calling_ae, called_ae=request.called_ae, address=connection.address, certificate_names=names
    )
    sender = Sender(stream, max_pdu_bytes=request.user.max_pdu_bytes)
    receiver.throttle = admitted.throttle
    if not registry.associate(connection, admitted.source, admitted.associations):
        raise rejection(REJECTED_TRANSIENT, BY_PRESENTATION, 2)
    accepted, accept = answer(body, tuple(admitted.transfer_syntaxes), limits.max_pdu_bytes, admitted.by_class, classes)
    stream.send(accept)
    return Established(_info(request, admitted, connection.address, names), accepted, receiver, sender)


@remembering
def answer(
    body: bytes,
    transfer_syntaxes: tuple[str, ...],
    max_pdu_bytes: int,
    by_class: ClassOrders = (),
    classes: ServedClasses = USUAL_CLASSES,
) -> tuple[Mapping[int, AcceptedContext], bytes]:
    """Return the contexts that are accepted of the A-ASSOCIATE-RQ with `body`, by their IDs, and the A-ASSOCIATE-AC."""
    request = decode_request(body)
    negotiated = negotiate(request, transfer_syntaxes, by_class, classes)
    return negotiated.accepted, encode_accept(request, negotiated.results, negotiated.roles, max_pdu_bytes=max_pdu_bytes)


def check(request: AssociateRequest) -> None:
    """Refuse what no admission has to decide on.

    Raises:
        AssociationRejected: another protocol version, another application context, or a title that is no AE title.
    """
    if not request.protocol_version & 1:
        raise rejection(REJECTED_PERMANENT, BY_ACSE, 2)
    if request.application_context != APPLICATION_CONTEXT:
        raise rejection(REJECTED_PERMANENT, BY_SERVICE_USER, 2)
    if not is_ae_title(request.called_ae):
        raise rejection(REJECTED_PERMANENT, BY_SERVICE_USER, 7)
    if not is_ae_title(request.calling_ae):
        raise rejection(REJECTED_PERMANENT, BY_SERVICE_USER, 3)


def _info(request: AssociateRequest, admitted: Admitted, address: str, names: tuple[str, ...] | None) -> AssociationInfo:
    return AssociationInfo(
        id=secrets.token_hex(6),
        calling_ae=request.calling_ae,
        called_ae=request.called_ae,
        address=address,
        certificate_names=names or (),
        source=admitted.source,
    )
