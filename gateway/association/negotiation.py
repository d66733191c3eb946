"""Which presentation contexts we accept, in which transfer syntax, in which role (PS3.8 §7.1.1.14, PS3.7 §D.3.3.4). Pure.

Accepted are Verification, Storage Commitment's reports, and for storage every SOP class but those known to be of another
service: the private ones and those newer than this software are instances too, and their bytes pass untouched. Refused are
private transfer syntaxes: what routing needs could not be read from such instances, and a requestor of theirs has to offer
Implicit VR Little Endian beside (PS3.5 §10.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from gateway.association.associate import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ACCEPTANCE,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    AssociateRequest,
    ContextResult,
    RequestedContext,
)
from gateway.association.contexts import LITTLE_ENDIAN, STORAGE_COMMITMENT, VERIFICATION, AcceptedContext
from gateway.domain import is_uid

_LOSSLESS = (
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.202",  # High-Throughput JPEG 2000 RPCL Lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Multi-component Lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
)
_UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)
_OTHERS = tuple(
    sorted(
        uid
        for uid, (_, kind, *_) in UID_dictionary.items()
        if kind == "Transfer Syntax" and uid not in (*_LOSSLESS, *_UNCOMPRESSED)
    )
)
"""The lossy ones, video, references to pixels elsewhere, and what is retired."""

J2K_FIRST: tuple[str, ...] = _LOSSLESS + _UNCOMPRESSED + _OTHERS
"""JPEG 2000 Lossless first; lossy ones only where nothing else is offered, lest a source compresses with loss for us."""

UNCOMPRESSED_FIRST: tuple[str, ...] = _UNCOMPRESSED + _LOSSLESS + _OTHERS
"""For a source that offers what it cannot send of every instance beside the uncompressed ones."""

COMPRESSED_FIRST: tuple[str, ...] = _LOSSLESS + _OTHERS + _UNCOMPRESSED
"""For a source whose instances are stored with loss, and which cannot decompress them."""

ORDERS: Mapping[str, tuple[str, ...]] = {
    "j2k-first": J2K_FIRST,
    "uncompressed-first": UNCOMPRESSED_FIRST,
    "compressed-first": COMPRESSED_FIRST,
}
"""The acceptance orders by the names under which they are learned; each has every transfer syntax of the standard."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What the A-ASSOCIATE-AC says, and the accepted contexts by their IDs."""

    results: tuple[ContextResult, ...]
    roles: Mapping[str, tuple[bool, bool]]
    accepted: Mapping[int, AcceptedContext]


def negotiate(request: AssociateRequest, transfer_syntaxes: Sequence[str]) -> Negotiated:
    """Answer each context of `request`; of what one offers for storage the first of `transfer_syntaxes` is taken."""
    supported = {context.context_id: _supported(context, transfer_syntaxes) for context in request.contexts}
    viable = [context for context in request.contexts if supported[context.context_id]]
    # An acceptor's list has each SOP class once, so contexts are negotiated one by one: their choices differ.
    answers = {
        context.context_id: negotiate_as_acceptor(
            [_proposed(context, supported[context.context_id])],
            [_ours(context.abstract_syntax, supported[context.context_id])],
            dict(request.user.roles),
        )
        for context in viable
    }
    results, roles = [], {}
    for context in request.contexts:
        if context.context_id not in answers:
            results.append(ContextResult(context.context_id, _refusal(context)))
            continue
        (answer,), replies = answers[context.context_id]
        results.append(ContextResult(context.context_id, answer.result, str(answer.transfer_syntax[0])))
        roles.update({str(reply.sop_class_uid): (bool(reply.scu_role), bool(reply.scp_role)) for reply in replies})
    return Negotiated(tuple(results), roles, _accepted(request, results))


def is_storage(sop_class_uid: str) -> bool:
    """Tell whether `sop_class_uid` is taken for a storage SOP class: any UID that is not known to be something else."""
    if not is_uid(sop_class_uid):
        return False
    name, kind, *_ = UID_dictionary.get(sop_class_uid, ("Storage", "SOP Class"))
    return "SOP Class" in kind and "Storage" in name and "Commitment" not in name and "Directory" not in name


def _supported(context: RequestedContext, transfer_syntaxes: Sequence[str]) -> list[str]:
    """Return what we take of what `context` offers, best first."""
    if context.abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT):
        order: Sequence[str] = LITTLE_ENDIAN
    elif is_storage(context.abstract_syntax):
        order = transfer_syntaxes
    else:
        return []
    offered = set(context.transfer_syntaxes)
    return [syntax for syntax in order if syntax in offered]


def _refusal(context: RequestedContext) -> int:
    known = context.abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT) or is_storage(context.abstract_syntax)
    return TRANSFER_SYNTAXES_NOT_SUPPORTED if known else ABSTRACT_SYNTAX_NOT_SUPPORTED


def _proposed(context: RequestedContext, supported: Sequence[str]) -> PresentationContext:
    proposed = _context(context.abstract_syntax, supported)
    proposed.context_id = context.context_id
    return proposed


def _ours(abstract_syntax: str, supported: Sequence[str]) -> PresentationContext:
    """Return the context as we support it: the peer may be SCU, and for Storage Commitment also SCP (PS3.4 §J.3.3)."""
    ours = _context(abstract_syntax, supported)
    ours.scu_role = True
    ours.scp_role = abstract_syntax == STORAGE_COMMITMENT
    return ours


def _context(abstract_syntax: str, transfer_syntaxes: Sequence[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(transfer_syntaxes[:1])
    return context


def _accepted(request: AssociateRequest, results: Sequence[ContextResult]) -> dict[int, AcceptedContext]:
    names = {context.context_id: context.abstract_syntax for context in request.contexts}
    return {
        result.context_id: AcceptedContext(result.context_id, names[result.context_id], result.transfer_syntax)
        for result in results
        if result.result == ACCEPTANCE
    }
