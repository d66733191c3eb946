"""A-ASSOCIATE-RQ and -AC: what goes over the wire as plain values (PS3.8 §9.3.2, §9.3.3, PS3.7 §D.3.3). Pure.

Everything in an A-ASSOCIATE-RQ comes from a stranger. An item that nobody can read costs the peer that item and not its
association, and unknown items are passed over, as PS3.8 §9.3.1 demands. pynetdicom's classes stay outside: they log the
values that they refuse, and pydicom's UID warns process-wide of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ImplicitVRLittleEndian

from gateway.association.contexts import MAX_CONTEXTS, AcceptedContext, ProposedContext
from gateway.association.pdu import INVALID_PDU_PARAMETER, PduType, encode_header
from gateway.domain import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_ae_title, is_uid
from gateway.errors import ProtocolError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM Application Context Name (PS3.7 §A.2.1)."""

PROTOCOL_VERSION = 1

ACCEPTANCE = 0
USER_REJECTION = 1
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4
"""Results of a presentation context (PS3.8 Table 9-18)."""

_FIXED = struct.Struct(">Hxx32s32x")
"""Protocol version, called and calling AE title, before the items."""

_ITEM = struct.Struct(">BxH")
_APPLICATION_CONTEXT_ITEM = 0x10
_CONTEXT_RQ_ITEM = 0x20
_CONTEXT_AC_ITEM = 0x21
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50
_MAXIMUM_LENGTH_ITEM = 0x51
_IMPLEMENTATION_CLASS_ITEM = 0x52
_ROLE_ITEM = 0x54
_IMPLEMENTATION_VERSION_ITEM = 0x55
_CONTEXT_HEADER_BYTES = 8
"""Item header, context ID, reserved, result (reserved in a request), reserved."""


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
    version, titles = _FIXED.unpack_from(body)
    contexts: dict[int, RequestedContext] = {}
    for number, item in items:
        if number == _CONTEXT_RQ_ITEM and len(item) > 4 and item[4] % 2 and item[4] not in contexts:
            contexts[item[4]] = _requested_context(item)
    return AssociateRequest(
        protocol_version=version,
        called_ae=_text(titles[:16]),
        calling_ae=_text(titles[16:]),
        titles=titles,
        application_context=next((_text(item[4:]) for number, item in items if number == _APPLICATION_CONTEXT_ITEM), ""),
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
    """Return the A-ASSOCIATE-AC PDU that answers `request`, whose titles it gives back byte for byte (PS3.8 §9.3.3).

    `roles` are the accepted (SCU role, SCP role) of SOP classes for which the peer proposed roles.
    """
    contexts = b"".join(
        _context_item(
            _CONTEXT_AC_ITEM, result.context_id, result.result, _item(_TRANSFER_SYNTAX_ITEM, result.transfer_syntax.encode())
        )
        for result in results
    )
    return _encode(PduType.ASSOCIATE_AC, request.titles, contexts, max_pdu_bytes, roles)


def encode_request(calling_ae: str, called_ae: str, contexts: Sequence[ProposedContext], *, max_pdu_bytes: int) -> bytes:
    """Return the A-ASSOCIATE-RQ PDU that proposes `contexts` under the IDs 1, 3, 5 … in their order (PS3.8 §9.3.2).

    Raises:
        ValueError: a title that is no AE title, a UID that is none, or no or too many contexts.
    """
    if not 1 <= len(contexts) <= MAX_CONTEXTS:
        raise ValueError(f"an association has 1 to {MAX_CONTEXTS} presentation contexts, not {len(contexts)}")
    for title in (calling_ae, called_ae):
        if not is_ae_title(title):
            raise ValueError(f"{title!r} is no AE title")
    proposals = b"".join(_proposal(2 * index + 1, context) for index, context in enumerate(contexts))
    roles = {each.abstract_syntax: (each.scu_role, each.scp_role) for each in contexts if each.scu_role or each.scp_role}
    titles = called_ae.encode().ljust(16) + calling_ae.encode().ljust(16)
    return _encode(PduType.ASSOCIATE_RQ, titles, proposals, max_pdu_bytes, roles)


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
    if len(body) < _FIXED.size:
        raise _malformed(f"only {len(body)} bytes")
    return _split(body, _FIXED.size)


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


def _readable(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    """Return the sub-items of an item; none where they cannot be told apart."""
    try:
        return list(_split(data, offset))
    except ProtocolError:
        return []


def _text(raw: bytes) -> str:
    # Some devices pad with NUL instead of spaces, and UIDs too.
    return raw.decode("latin-1").strip("\0 ")


def _requested_context(data: bytes) -> RequestedContext:
    abstract, syntaxes = "", dict[str, None]()
    for number, part in _readable(data, _CONTEXT_HEADER_BYTES):
        uid = _text(part[4:])
        if number == _ABSTRACT_SYNTAX_ITEM:
            abstract = uid if is_uid(uid) else ""
        elif number == _TRANSFER_SYNTAX_ITEM and is_uid(uid):
            syntaxes[uid] = None
    return RequestedContext(data[4], abstract, tuple(syntaxes))


def _context_result(data: bytes) -> tuple[int, tuple[int, str]]:
    """Return the ID, result and transfer syntax of a presentation context item of an A-ASSOCIATE-AC."""
    if len(data) < _CONTEXT_HEADER_BYTES:
        return 0, (USER_REJECTION, "")
    parts = _readable(data, _CONTEXT_HEADER_BYTES)
    return data[4], (data[6], next((_text(part[4:]) for number, part in parts if number == _TRANSFER_SYNTAX_ITEM), ""))


def _user_information(items: Iterable[tuple[int, bytes]]) -> UserInformation:
    data = next((item for number, item in items if number == _USER_INFORMATION_ITEM), b"")
    parts = _readable(data, 4)
    plain = {number: part[4:] for number, part in parts}
    length = plain.get(_MAXIMUM_LENGTH_ITEM, b"")
    return UserInformation(
        max_pdu_bytes=int.from_bytes(length, "big") if len(length) == 4 else 0,
        roles=dict(role for number, part in parts if number == _ROLE_ITEM for role in _roles(part)),
        implementation_class_uid=_text(plain.get(_IMPLEMENTATION_CLASS_ITEM, b"")),
        implementation_version=_text(plain.get(_IMPLEMENTATION_VERSION_ITEM, b"")),
    )


def _roles(part: bytes) -> Iterator[tuple[str, tuple[bool, bool]]]:
    """Yield the SOP class and the roles of a role selection item, nothing where it cannot be read (PS3.7 §D.3.3.4)."""
    end = 6 + int.from_bytes(part[4:6], "big")
    uid = _text(part[6:end])
    if len(part) == end + 2 and is_uid(uid):
        yield uid, (part[end] == 1, part[end + 1] == 1)


def _encode(kind: PduType, titles: bytes, contexts: bytes, max_pdu_bytes: int, roles: Mapping[str, tuple[bool, bool]]) -> bytes:
    user = (
        _item(_MAXIMUM_LENGTH_ITEM, max_pdu_bytes.to_bytes(4, "big"))
        + _item(_IMPLEMENTATION_CLASS_ITEM, IMPLEMENTATION_CLASS_UID.encode())
        + b"".join(_role_item(uid, scu, scp) for uid, (scu, scp) in roles.items())
        + _item(_IMPLEMENTATION_VERSION_ITEM, IMPLEMENTATION_VERSION_NAME.encode())
    )
    body = _FIXED.pack(PROTOCOL_VERSION, titles) + _item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode())
    body += contexts + _item(_USER_INFORMATION_ITEM, user)
    return encode_header(kind, len(body)) + body


def _proposal(context_id: int, proposed: ProposedContext) -> bytes:
    for uid in (proposed.abstract_syntax, *proposed.transfer_syntaxes):
        if not is_uid(uid):
            raise ValueError(f"{uid!r} is no UID")
    syntaxes = b"".join(_item(_TRANSFER_SYNTAX_ITEM, uid.encode()) for uid in proposed.transfer_syntaxes)
    return _context_item(
        _CONTEXT_RQ_ITEM, context_id, 0, _item(_ABSTRACT_SYNTAX_ITEM, proposed.abstract_syntax.encode()) + syntaxes
    )


def _context_item(number: int, context_id: int, result: int, parts: bytes) -> bytes:
    return _item(number, bytes((context_id, 0, result, 0)) + parts)


def _role_item(sop_class_uid: str, scu: bool, scp: bool) -> bytes:
    uid = sop_class_uid.encode()
    return _item(_ROLE_ITEM, len(uid).to_bytes(2, "big") + uid + bytes((scu, scp)))


def _item(number: int, body: bytes) -> bytes:
    return _ITEM.pack(number, len(body)) + body


def _malformed(problem: str) -> ProtocolError:
    return ProtocolError(f"a malformed A-ASSOCIATE PDU: {problem}", reason=INVALID_PDU_PARAMETER)
