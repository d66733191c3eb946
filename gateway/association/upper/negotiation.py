"""The presentation contexts that we accept, in which transfer syntax, in which role (PS3.8 §7.1.1.14, PS3.7 §D.3.3.4). Pure.

pynetdicom negotiates; what it is told that we support is decided here, request by request. Accepted are the SOP classes of our
services, and for storage every SOP class but those known to be of another service: the private ones and those newer than this
software are instances too, and their bytes pass untouched. Refused are private transfer syntaxes: what routing needs could not be
read from such instances, and a requestor of theirs has to offer Implicit VR Little Endian beside (PS3.5 §10.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from gateway.association.upper.associate import ACCEPTANCE, AssociateRequest, ContextResult, RequestedContext, presentation_context
from gateway.association.upper.contexts import LITTLE_ENDIAN, STORAGE_COMMITMENT, STORAGE_SOP_CLASSES, VERIFICATION, AcceptedContext
from gateway.core.domain import is_sop_class
from gateway.dicom.syntaxes import uid_of

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
UNCOMPRESSED: tuple[str, ...] = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)
_OTHERS = tuple(
    sorted(
        uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax" and uid not in (*_LOSSLESS, *UNCOMPRESSED)
    )
)
"""The lossy ones, video, references to pixels elsewhere, and what is retired."""

J2K_FIRST: tuple[str, ...] = _LOSSLESS + UNCOMPRESSED + _OTHERS
"""JPEG 2000 Lossless first; lossy ones only where nothing else is offered, lest a source compresses with loss for us."""

UNCOMPRESSED_FIRST: tuple[str, ...] = UNCOMPRESSED + _LOSSLESS + _OTHERS
"""For a source that offers what it cannot send of every instance beside the uncompressed ones."""

COMPRESSED_FIRST: tuple[str, ...] = _LOSSLESS + _OTHERS + UNCOMPRESSED
"""For a source whose instances are stored with loss, and which cannot decompress them."""


def preferring(transfer_syntaxes: Iterable[str]) -> tuple[str, ...]:
    """Return the acceptance order in which `transfer_syntaxes`, UIDs or the names of a configuration, come first."""
    return tuple(dict.fromkeys((*map(uid_of, transfer_syntaxes), *J2K_FIRST)))


ORDERS: Mapping[str, tuple[str, ...]] = {
    "j2k-first": J2K_FIRST,
    "uncompressed-first": UNCOMPRESSED_FIRST,
    "compressed-first": COMPRESSED_FIRST,
}
"""The acceptance orders by the names under which they are learned; each has every transfer syntax of the standard."""

AS_PROPOSED: tuple[str, ...] = ()
"""No order of ours: of each context the transfer syntax is taken that its proposer names first, as far as it is known."""

AS_PROPOSED_NAME = "as-proposed"

ClassOrders = tuple[tuple[str, tuple[str, ...]], ...]
"""SOP classes with the acceptance orders that are theirs, in place of the usual one."""


@dataclass(frozen=True, slots=True)
class ServedClasses:
    """The SOP classes that are served: those `named`, in uncompressed transfer syntaxes, and with `storage` all of storage.

    Of those `reported` the requestor may be the SCP, to report to us; of all others it is the SCU.
    """

    named: frozenset[str]
    reported: frozenset[str] = frozenset()
    storage: bool = True


USUAL_CLASSES = ServedClasses(frozenset({VERIFICATION, STORAGE_COMMITMENT}), frozenset({STORAGE_COMMITMENT}))
"""Those of a gateway that takes instances, and reports on what it sent (PS3.4 §J.3.3)."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The results for the A-ASSOCIATE-AC, and the accepted contexts by their IDs."""

    results: tuple[ContextResult, ...]
    roles: Mapping[str, tuple[bool, bool]]
    accepted: Mapping[int, AcceptedContext]


def negotiate(
    request: AssociateRequest,
    transfer_syntaxes: Sequence[str],
    by_class: ClassOrders = (),
    classes: ServedClasses = USUAL_CLASSES,
) -> Negotiated:
    """Answer each context of `request`; of what one offers for storage the first of `transfer_syntaxes` is taken.

    `by_class` has the orders of SOP classes with one of their own, `classes` are those that are served at all. An order that is
    `AS_PROPOSED` takes what is proposed first.
    """
    orders = dict(by_class)
    taken = {each.abstract_syntax: _order(each.abstract_syntax, classes) for each in request.contexts}
    usual = tuple(transfer_syntaxes)
    wanted = {uid: orders.get(uid, usual) if known is J2K_FIRST else known for uid, known in taken.items()}
    proposed = [_proposed(each, wanted[each.abstract_syntax], taken[each.abstract_syntax]) for each in request.contexts]
    supported = [
        _supported(abstract, wanted[abstract] or known, abstract in classes.reported) for abstract, known in taken.items() if known
    ]
    answers, roles = negotiate_as_acceptor(proposed, supported, dict(request.user.roles))
    return Negotiated(
        tuple(ContextResult(each.context_id, each.result, str(each.transfer_syntax[0])) for each in answers),
        {str(role.sop_class_uid): (role.scu_role, role.scp_role) for role in roles},
        {each.context_id: _accepted(each) for each in answers if each.result == ACCEPTANCE},
    )


def is_storage(sop_class_uid: str) -> bool:
    """Tell whether `sop_class_uid` is taken for a storage SOP class: any UID that is not known to be something else."""
    if not is_sop_class(sop_class_uid):
        return False
    name, kind, *_ = UID_dictionary.get(sop_class_uid, ("Storage", "SOP Class"))
    return "SOP Class" in kind and "Storage" in name and "Commitment" not in name and "Directory" not in name


STORAGE: tuple[str, ...] = tuple(sorted({*STORAGE_SOP_CLASSES, *filter(is_storage, UID_dictionary)}))
"""Every storage SOP class that is known, those too that the standard has retired: archives still hold their instances."""


def _order(abstract_syntax: str, classes: ServedClasses) -> tuple[str, ...]:
    """Return the transfer syntaxes that we know for `abstract_syntax`; none where we do not serve it."""
    if abstract_syntax in classes.named:
        return LITTLE_ENDIAN
    return J2K_FIRST if classes.storage and is_storage(abstract_syntax) else ()


def _proposed(context: RequestedContext, order: Sequence[str], known: Sequence[str]) -> PresentationContext:
    """Return what is proposed without the transfer syntaxes that make no difference, of which there may be thousands.

    Without an `order` that is the first of those `known`.
    """
    if not context.transfer_syntaxes:
        # pynetdicom cannot answer such a context; without its abstract syntax it is refused, too.
        return presentation_context(context.context_id, "", LITTLE_ENDIAN)
    offered = [syntax for syntax in context.transfer_syntaxes if syntax in (order or known)]
    offered = offered if order else offered[:1]
    return presentation_context(context.context_id, context.abstract_syntax, offered or context.transfer_syntaxes[:1])


@lru_cache(maxsize=256)
def _supported(abstract_syntax: str, order: tuple[str, ...], reported: bool) -> PresentationContext:
    """Return what we support: as SCP, and of a class that is `reported` also as SCU, to be reported to (PS3.4 §J.3.3)."""
    context = presentation_context(None, abstract_syntax, order)
    context.scu_role, context.scp_role = True, reported
    return context


def _accepted(context: PresentationContext) -> AcceptedContext:
    abstract_syntax, transfer_syntax = str(context.abstract_syntax), str(context.transfer_syntax[0])
    # pynetdicom says what the acceptor may be, and we what the requestor may.
    return AcceptedContext(context.context_id, abstract_syntax, transfer_syntax, as_scu=context.as_scp, as_scp=context.as_scu)
