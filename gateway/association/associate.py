"""A-ASSOCIATE-RQ and -AC: what goes over the wire as plain values (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3.3). Pure.

pynetdicom encodes and decodes the items; each is decoded by itself, so that one that nobody can read costs the peer that
item and not its association. Unknown items are passed over, as PS3.8 §9.3.1 demands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import (
    ApplicationContextItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    PresentationContextItemAC,
    PresentationContextItemRQ,
    SCP_SCU_RoleSelectionSubItem,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from gateway.association.contexts import AcceptedContext, ProposedContext
from gateway.association.pdu import HEADER_BYTES, INVALID_PDU_PARAMETER
from gateway.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.errors import ProtocolError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM Application Context Name (PS3.7 §A.2.1)."""

ACCEPTANCE = 0
USER_REJECTION = 1
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4
"""Results of a presentation context (PS3.8 Table 9-18)."""

_FIXED_BYTES = 68
_TITLES = slice(4, 36)
_CALLED = slice(4, 20)
_CALLING = slice(20, 36)
_APPLICATION_CONTEXT_ITEM = 0x10
_CONTEXT_RQ_ITEM = 0x20
_CONTEXT_AC_ITEM = 0x21
_USER_INFORMATION_ITEM = 0x50
_MAXIMUM_LENGTH_ITEM = 0x51
_IMPLEMENTATION_CLASS_ITEM = 0x52
_ROLE_ITEM = 0x54
_IMPLEMENTATION_VERSION_ITEM = 0x55
_ITEM = struct.Struct(">BxH")

# What pynetdicom's items raise on bytes that they cannot read.
_CODEC_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, NotImplementedError, struct.error)


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
    transfer_syntax: str = str(ImplicitVRLittleEndian)


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC as the requestor reads it: what it may use, what was refused, and the peer's user information."""

    accepted: tuple[AcceptedContext, ...]
    refused: tuple[ProposedContext, ...]
    user: UserInformation


def decode_request(body: bytes) -> AssociateRequest:
    """Return what the A-ASSOCIATE-RQ PDU with `body` after its header asks for (PS3.8 §9.3.2).

    Contexts whose ID is not an odd number are left out, and so is any but the first of an ID.

    Raises:
        ProtocolError: it ends too early or its items overlap its end.
    """
    items = list(_items(body))
    contexts: dict[int, RequestedContext] = {}
    for number, item in items:
        if number == _CONTEXT_RQ_ITEM and len(item) > 4 and item[4] % 2 and item[4] not in contexts:
            contexts[item[4]] = _requested_context(item)
    return AssociateRequest(
        protocol_version=int.from_bytes(body[:2], "big"),
        called_ae=_title(body[_CALLED]),
        calling_ae=_title(body[_CALLING]),
        titles=body[_TITLES],
        application_context=_application_context(items),
        contexts=tuple(contexts.values()),
        user=_user_information(items),
    )


def encode_accept(
    request: AssociateRequest,
    results: Sequence[ContextResult],
    roles: Mapping[str, tuple[bool, bool]],
    *,
    max_pdu_bytes: int,
) -> bytes:
    """Return the A-ASSOCIATE-AC PDU that answers `request` (PS3.8 §9.3.3).

    `roles` are the accepted (SCU role, SCP role) of SOP classes for which the peer proposed roles.
    """
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.presentation_context_definition_results_list = [_result(result) for result in results]
    primitive.user_information = _own_information(max_pdu_bytes) + [_role(uid, *role) for uid, role in roles.items()]
    return _with_titles(A_ASSOCIATE_AC(primitive).encode(), request.titles)


def encode_request(calling_ae: str, called_ae: str, contexts: Sequence[ProposedContext], *, max_pdu_bytes: int) -> bytes:
    """Return the A-ASSOCIATE-RQ PDU that proposes `contexts` under the IDs 1, 3, 5 … in their order (PS3.8 §9.3.2).

    Raises:
        ValueError: an AE title or UID that cannot be encoded, or no or too many contexts.
    """
    if not 1 <= len(contexts) <= 128:
        raise ValueError(f"an association has 1 to 128 presentation contexts, not {len(contexts)}")
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = calling_ae
    primitive.called_ae_title = called_ae
    primitive.presentation_context_definition_list = [_proposal(index, context) for index, context in enumerate(contexts)]
    primitive.user_information = _own_information(max_pdu_bytes) + _proposed_roles(contexts)
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def decode_accept(body: bytes, contexts: Sequence[ProposedContext]) -> AssociateAccept:
    """Return what the A-ASSOCIATE-AC PDU with `body` after its header grants of `contexts`, as `encode_request` numbered them.

    A context that is accepted in a transfer syntax which was not proposed counts as refused.

    Raises:
        ProtocolError: it cannot be read.
    """
    items = list(_items(body))
    results = dict(_context_result(item) for number, item in items if number == _CONTEXT_AC_ITEM)
    user = _user_information(items)
    accepted, refused = [], []
    for index, context in enumerate(contexts):
        context_id = 2 * index + 1
        result, syntax = results.get(context_id, (USER_REJECTION, ""))
        if result == ACCEPTANCE and syntax in context.transfer_syntaxes:
            scu, scp = _granted_roles(context, user.roles)
            accepted.append(AcceptedContext(context_id, context.abstract_syntax, syntax, as_scu=scu, as_scp=scp))
        else:
            refused.append(context)
    return AssociateAccept(tuple(accepted), tuple(refused), user)


def _granted_roles(context: ProposedContext, answers: Mapping[str, tuple[bool, bool]]) -> tuple[bool, bool]:
    """Return whether the requestor may be SCU and SCP; without an answer to its proposal it is SCU only (PS3.7 §D.3.3.4)."""
    if not (context.scu_role or context.scp_role) or context.abstract_syntax not in answers:
        return True, False
    scu, scp = answers[context.abstract_syntax]
    return context.scu_role and scu, context.scp_role and scp


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes (header included) of the variable items of an A-ASSOCIATE PDU."""
    if len(body) < _FIXED_BYTES:
        raise _malformed(f"only {len(body)} bytes")
    return _split(body, _FIXED_BYTES)


def _split(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset < len(data):
        if offset + 4 > len(data):
            raise _malformed("it ends within an item")
        number, length = _ITEM.unpack_from(data, offset)
        end = offset + 4 + length
        if end > len(data):
            raise _malformed(f"item {number:02X} is longer than the PDU")
        yield number, data[offset:end]
        offset = end


def _title(raw: bytes) -> str:
    # Some devices pad with NUL instead of spaces.
    return raw.decode("latin-1").strip("\0 ")


def _decoded(item: Any, data: bytes) -> Any | None:
    """Let pynetdicom's `item` read `data`; None where it cannot."""
    try:
        item.decode(data)
    except _CODEC_ERRORS:
        return None
    return item


def _application_context(items: Sequence[tuple[int, bytes]]) -> str:
    data = next((item for number, item in items if number == _APPLICATION_CONTEXT_ITEM), b"")
    item = _decoded(ApplicationContextItem(), data) if data else None
    return str(item.application_context_name) if item else ""


def _requested_context(data: bytes) -> RequestedContext:
    item = _decoded(PresentationContextItemRQ(), data)
    if item is None or not item.abstract_syntax:
        return RequestedContext(data[4], "", ())
    return RequestedContext(data[4], str(item.abstract_syntax), tuple(dict.fromkeys(map(str, item.transfer_syntax))))


def _context_result(data: bytes) -> tuple[int, tuple[int, str]]:
    """Return the ID, result and transfer syntax of a presentation context item of an A-ASSOCIATE-AC."""
    item = _decoded(PresentationContextItemAC(), data)
    if item is None:
        # Without its transfer syntax it cannot be used, whatever its result is.
        return (data[4] if len(data) > 4 else 0), (USER_REJECTION, "")
    return item.context_id, (item.result, str(item.transfer_syntax or ""))


def _user_information(items: Sequence[tuple[int, bytes]]) -> UserInformation:
    data = next((item for number, item in items if number == _USER_INFORMATION_ITEM), b"")
    found: dict[int, Any] = {}
    roles: dict[str, tuple[bool, bool]] = {}
    for number, part in _split(data, 4):
        item = _decoded(_USER_ITEMS[number](), part) if number in _USER_ITEMS else None
        if item is not None and number == _ROLE_ITEM:
            roles[str(item.sop_class_uid)] = (bool(item.scu_role), bool(item.scp_role))
        elif item is not None:
            found[number] = item
    return UserInformation(
        max_pdu_bytes=getattr(found.get(_MAXIMUM_LENGTH_ITEM), "maximum_length_received", 0),
        roles=roles,
        implementation_class_uid=str(getattr(found.get(_IMPLEMENTATION_CLASS_ITEM), "implementation_class_uid", "") or ""),
        implementation_version=str(getattr(found.get(_IMPLEMENTATION_VERSION_ITEM), "implementation_version_name", "") or ""),
    )


_USER_ITEMS: dict[int, type[Any]] = {
    _MAXIMUM_LENGTH_ITEM: MaximumLengthSubItem,
    _IMPLEMENTATION_CLASS_ITEM: ImplementationClassUIDSubItem,
    _ROLE_ITEM: SCP_SCU_RoleSelectionSubItem,
    _IMPLEMENTATION_VERSION_ITEM: ImplementationVersionNameSubItem,
}


def _own_information(max_pdu_bytes: int) -> list[Any]:
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _proposed_roles(contexts: Sequence[ProposedContext]) -> list[Any]:
    roles = {context.abstract_syntax: context for context in contexts if context.scu_role or context.scp_role}
    return [_role(uid, context.scu_role, context.scp_role) for uid, context in roles.items()]


def _role(sop_class_uid: str, scu: bool, scp: bool) -> Any:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = sop_class_uid
    role.scu_role = scu
    role.scp_role = scp
    return role


def _proposal(index: int, proposed: ProposedContext) -> PresentationContext:
    context = PresentationContext()
    context.context_id = 2 * index + 1
    context.abstract_syntax = proposed.abstract_syntax
    context.transfer_syntax = list(proposed.transfer_syntaxes)
    return context


def _result(result: ContextResult) -> PresentationContext:
    context = PresentationContext()
    context.context_id = result.context_id
    context.result = result.result
    context.transfer_syntax = [result.transfer_syntax]
    return context


def _with_titles(pdu: bytes, titles: bytes) -> bytes:
    """Put the titles of the request, byte for byte, into the A-ASSOCIATE-AC (PS3.8 Table 9-17)."""
    start = HEADER_BYTES + _TITLES.start
    return pdu[:start] + titles + pdu[start + len(titles) :]


def _malformed(problem: str) -> ProtocolError:
    return ProtocolError(f"a malformed A-ASSOCIATE PDU: {problem}", reason=INVALID_PDU_PARAMETER)
