"""A-ASSOCIATE-RQ and -AC as plain values, read and written by pynetdicom (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3.3). Pure.

Rooms beside this one see dataclasses only. PDUs of strangers are read by the classes of `items`; ours are written by
pynetdicom's own. A context in which something cannot be read is there without that, so that it is answered with a refusal.

A peer proposes the same on each association, and to read or to write some hundred contexts takes as long as to take twenty small
instances in: what was read and written is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import UserInformationItem
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationVersionNameNotification
from pynetdicom.presentation import PresentationContext, build_role, negotiate_as_requestor

from gateway.association.upper.contexts import MAX_CONTEXTS, AcceptedContext, ProposedContext
from gateway.association.upper.items import IncomingAccept, IncomingRequest, read
from gateway.core.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_conforming_uid

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM Application Context Name (PS3.7 §A.2.1)."""

REMEMBERED = 64
REMEMBERED_BYTES = 32768
"""The number of PDUs that are remembered, and the longest of them: strangers send them. 128 contexts take some 20,000 bytes."""

Rest = TypeVarTuple("Rest")
T = TypeVar("T")

ACCEPTANCE = 0
"""The result of a presentation context that was accepted (PS3.8 Table 9-18)."""


@dataclass(frozen=True, slots=True)
class RequestedContext:
    """One proposed presentation context; the abstract syntax is empty where it could not be read."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The items of PS3.7 §D.3.3 that matter here.

    `max_pdu_bytes` is the longest P-DATA-TF that the peer takes, 0 for any. `roles` maps SOP classes to (SCU role, SCP role).
    """

    max_pdu_bytes: int = 0
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    implementation_class_uid: str = ""
    implementation_version: str = ""


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ. The titles are stripped of padding and otherwise as sent; `titles` are the 32 bytes of both."""

    protocol_version: int
    called_ae: str
    calling_ae: str
    titles: bytes
    application_context: str
    contexts: tuple[RequestedContext, ...]
    user: UserInformation


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The acceptor's answer to one presentation context; the transfer syntax counts only with `ACCEPTANCE`."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC as the requestor reads it: what it may use, what was refused, and the peer's user information."""

    accepted: tuple[AcceptedContext, ...]
    refused: tuple[ProposedContext, ...]
    user: UserInformation


def remembering(function: Callable[[bytes, *Rest], T]) -> Callable[[bytes, *Rest], T]:
    """Have a pure function of a peer's PDU, and of what else can be hashed, remember what it returned for the last ones."""
    known = lru_cache(maxsize=REMEMBERED)(function)

    @wraps(function)
    def recall(body: bytes, *rest: *Rest) -> T:
        return known(body, *rest) if len(body) <= REMEMBERED_BYTES else function(body, *rest)

    return recall


@remembering
def decode_request(body: bytes) -> AssociateRequest:
    """Return what the A-ASSOCIATE-RQ PDU with `body` after its header asks for (PS3.8 §9.3.2).

    Contexts whose ID is not an odd number are left out, and so is any but the first of an ID.

    Raises:
        ProtocolError: it ends too early or its items overlap its end.
    """
    pdu = read(IncomingRequest(), body)
    contexts: dict[int, RequestedContext] = {}
    for item in pdu.presentation_context:
        if item.context_id % 2 and item.context_id not in contexts:
            # Nobody can speak one that is no UID; pynetdicom does not take it.
            syntaxes = tuple(dict.fromkeys(filter(is_conforming_uid, map(str, item.transfer_syntax))))
            contexts[item.context_id] = RequestedContext(item.context_id, str(item.abstract_syntax or ""), syntaxes)
    return AssociateRequest(
        protocol_version=pdu.protocol_version,
        called_ae=_title(pdu.called_ae_title),
        calling_ae=_title(pdu.calling_ae_title),
        titles=pdu.called_ae_title + pdu.calling_ae_title,
        application_context=str(pdu.application_context_name or ""),
        contexts=tuple(contexts.values()),
        user=_user_information(pdu.user_information),
    )


def encode_accept(
    request: AssociateRequest,
    results: Sequence[ContextResult],
    roles: Mapping[str, tuple[bool, bool]],
    *,
    max_pdu_bytes: int,
) -> bytes:
    """Return the A-ASSOCIATE-AC PDU that answers `request`, whose titles it gives back byte for byte (PS3.8 §9.3.3).

    `roles` are the accepted (SCU role, SCP role) of SOP classes for which the peer proposed roles. The titles are ASCII.
    """
    primitive = _primitive(max_pdu_bytes, roles)
    primitive.presentation_context_definition_results_list = [
        presentation_context(each.context_id, "", (each.transfer_syntax,), each.result) for each in results
    ]
    pdu = A_ASSOCIATE_AC(primitive)
    pdu.reserved_aet, pdu.reserved_aec = request.titles[:16].decode("ascii"), request.titles[16:].decode("ascii")
    return bytes(pdu.encode())


def encode_request(calling_ae: str, called_ae: str, contexts: Sequence[ProposedContext], *, max_pdu_bytes: int) -> bytes:
    """Return the A-ASSOCIATE-RQ PDU that proposes `contexts` under the IDs 1, 3, 5 … in their order (PS3.8 §9.3.2).

    Raises:
        ValueError: a title that is no AE title, a UID that is none, or no or too many contexts.
    """
    if not 1 <= len(contexts) <= MAX_CONTEXTS:
        raise ValueError(f"an association has 1 to {MAX_CONTEXTS} presentation contexts, not {len(contexts)}")
    return _encode_request(calling_ae, called_ae, tuple(contexts), max_pdu_bytes)


@lru_cache(maxsize=REMEMBERED)
def _encode_request(calling_ae: str, called_ae: str, contexts: tuple[ProposedContext, ...], max_pdu_bytes: int) -> bytes:
    roles = {each.abstract_syntax: (each.scu_role, each.scp_role) for each in contexts if each.scu_role or each.scp_role}
    primitive = _primitive(max_pdu_bytes, roles)
    primitive.calling_ae_title, primitive.called_ae_title = calling_ae, called_ae
    primitive.presentation_context_definition_list = _proposals(contexts)
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def decode_accept(body: bytes, contexts: Sequence[ProposedContext]) -> AssociateAccept:
    """Return what the A-ASSOCIATE-AC PDU with `body` after its header grants of `contexts`, as `encode_request` numbered them.

    A context that is accepted in a transfer syntax which was not proposed counts as refused. Without an answer to a role that we
    proposed we are SCU only (PS3.7 §D.3.3.4).

    Raises:
        ProtocolError: it cannot be read.
    """
    return _decode_accept(body, tuple(contexts))


@remembering
def _decode_accept(body: bytes, contexts: tuple[ProposedContext, ...]) -> AssociateAccept:
    pdu = read(IncomingAccept(), body)
    user = _user_information(pdu.user_information)
    answers = [
        presentation_context(
            item.context_id, "", filter(is_conforming_uid, map(str, filter(None, (item.transfer_syntax,)))), item.result
        )
        for item in pdu.presentation_context
        if item.context_id % 2
    ]
    accepted, refused = [], []
    for context, result in zip(contexts, negotiate_as_requestor(_proposals(contexts), answers, dict(user.roles)), strict=True):
        syntax = str(next(iter(result.transfer_syntax), ""))
        if result.result == ACCEPTANCE and syntax in context.transfer_syntaxes:
            accepted.append(
                AcceptedContext(result.context_id, context.abstract_syntax, syntax, as_scu=result.as_scu, as_scp=result.as_scp)
            )
        else:
            refused.append(context)
    return AssociateAccept(tuple(accepted), tuple(refused), user)


def presentation_context(
    context_id: int | None, abstract_syntax: str, transfer_syntaxes: Iterable[str], result: int | None = None
) -> PresentationContext:
    """Return what pynetdicom negotiates with. The UIDs are UIDs already."""
    context = PresentationContext()
    context.context_id, context.abstract_syntax, context.result = context_id, abstract_syntax, result
    context.transfer_syntax = list(transfer_syntaxes)
    return context


def _proposals(contexts: Sequence[ProposedContext]) -> list[PresentationContext]:
    proposals = []
    for index, each in enumerate(contexts):
        proposal = presentation_context(2 * index + 1, each.abstract_syntax, each.transfer_syntaxes)
        if each.scu_role or each.scp_role:
            proposal.scu_role, proposal.scp_role = each.scu_role, each.scp_role
        proposals.append(proposal)
    return proposals


def _primitive(max_pdu_bytes: int, roles: Mapping[str, tuple[bool, bool]]) -> A_ASSOCIATE:
    """Return an A-ASSOCIATE primitive with everything but titles and presentation contexts."""
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.maximum_length_received = max_pdu_bytes
    primitive.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    primitive.user_information += [*(build_role(uid, scu, scp) for uid, (scu, scp) in roles.items()), version]
    return primitive


def _user_information(item: UserInformationItem | None) -> UserInformation:
    if item is None:
        return UserInformation()
    return UserInformation(
        max_pdu_bytes=item.maximum_length or 0,
        roles={str(uid): (bool(role.scu), bool(role.scp)) for uid, role in item.role_selection.items()},
        implementation_class_uid=str(item.implementation_class_uid or ""),
        implementation_version=str(item.implementation_version_name or ""),
    )


def _title(raw: bytes) -> str:
    # Some devices pad with NUL instead of spaces.
    return raw.decode("latin-1").strip("\0 ")
