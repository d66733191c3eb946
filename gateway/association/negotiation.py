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

from gateway.association.associate import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ACCEPTANCE,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    USER_REJECTION,
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
    roles = {uid: _granted(uid, *proposed) for uid, proposed in request.user.roles.items()}
    results = tuple(_result(context, transfer_syntaxes, roles) for context in request.contexts)
    accepted = {
        context.context_id: AcceptedContext(context.context_id, context.abstract_syntax, result.transfer_syntax)
        for context, result in zip(request.contexts, results, strict=True)
        if result.result == ACCEPTANCE
    }
    named = {context.abstract_syntax for context in accepted.values()}
    return Negotiated(results, {uid: granted for uid, granted in roles.items() if uid in named}, accepted)


def is_storage(sop_class_uid: str) -> bool:
    """Tell whether `sop_class_uid` is taken for a storage SOP class: any UID that is not known to be something else."""
    if not is_uid(sop_class_uid):
        return False
    name, kind, *_ = UID_dictionary.get(sop_class_uid, ("Storage", "SOP Class"))
    return "SOP Class" in kind and "Storage" in name and "Commitment" not in name and "Directory" not in name


def _result(context: RequestedContext, transfer_syntaxes: Sequence[str], roles: Mapping[str, tuple[bool, bool]]) -> ContextResult:
    order = _order(context.abstract_syntax, transfer_syntaxes)
    if not order:
        return ContextResult(context.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED)
    offered = set(context.transfer_syntaxes)
    chosen = next((syntax for syntax in order if syntax in offered), None)
    if chosen is None:
        return ContextResult(context.context_id, TRANSFER_SYNTAXES_NOT_SUPPORTED)
    if not any(roles.get(context.abstract_syntax, (True,))):
        return ContextResult(context.context_id, USER_REJECTION)
    return ContextResult(context.context_id, ACCEPTANCE, chosen)


def _order(abstract_syntax: str, transfer_syntaxes: Sequence[str]) -> Sequence[str]:
    """Return the transfer syntaxes that we take for `abstract_syntax`, best first; none where we do not serve it."""
    if abstract_syntax in (VERIFICATION, STORAGE_COMMITMENT):
        return LITTLE_ENDIAN
    return transfer_syntaxes if is_storage(abstract_syntax) else ()


def _granted(abstract_syntax: str, scu: bool, scp: bool) -> tuple[bool, bool]:
    """Return what the peer may be of what it proposes: SCU, and for Storage Commitment also SCP, to report (PS3.4 §J.3.3)."""
    return scu, scp and abstract_syntax == STORAGE_COMMITMENT
