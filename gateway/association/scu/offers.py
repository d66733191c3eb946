"""The presentation contexts to propose for a C-GET (PS3.4 §C.4.3, PS3.7 §D.3.3.4). Pure.

In a C-GET we propose and the peer sends: it can send an instance as it is only in a context with the instance's transfer syntax.
Which one that is nothing tells before, and of several in one context the peer accepts one, by its own order. So each context has
one transfer syntax; what does not fit on one association is proposed on further ones, for what did not come on those before.
Where the SOP classes are unknown too, every storage SOP class has two contexts, uncompressed and compressed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from gateway.association.upper.contexts import LITTLE_ENDIAN, MAX_CONTEXTS, STUDY_ROOT_GET, ProposedContext
from gateway.association.upper.negotiation import STORAGE, UNCOMPRESSED, is_storage

GET_CONTEXT = ProposedContext(STUDY_ROOT_GET, LITTLE_ENDIAN)

STORAGE_CONTEXTS = MAX_CONTEXTS - 1
"""The number of storage contexts that fit into an association beside the C-GET's own context."""

USUAL_SYNTAXES = frozenset(
    {
        *UNCOMPRESSED,
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline
        "1.2.840.10008.1.2.4.51",  # JPEG Extended
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless SV1
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
        "1.2.840.10008.1.2.4.100",  # MPEG2 Main Level
        "1.2.840.10008.1.2.4.102",  # MPEG-4 High Profile
        "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 Lossless
        "1.2.840.10008.1.2.5",  # RLE Lossless
    }
)
"""The usual syntaxes of archives; all others are proposed after these. DCMTK takes no context of more than 50 transfer syntaxes."""

MAX_CLASSES = STORAGE_CONTEXTS // len(USUAL_SYNTAXES)
"""So many SOP classes may be asked for at once with all of their usual transfer syntaxes on one association."""

_IMAGES = "2 4 1 1.1 1.2 6.1 3.1 7 128 130 20 12.1 12.2 2.1 4.1 1.3 6 3 5"
_BESIDE = "104.1 11.1 88.11 88.22 88.33 88.59 88.67 66.4 77.1.4 481.1 481.2 481.3 481.5"
_USUAL_CLASSES = tuple("1.2.840.10008.5.1.4.1.1." + tail for tail in f"{_IMAGES} {_BESIDE}".split())
"""CT, MR, CR, DX, MG, US, SC, PET, NM, XA, RF, enhanced CT and MR, retired US and NM; PDF, presentation states, reports, RT …"""


def offers(sop_classes: Collection[str] | None, transfer_syntaxes: Sequence[str]) -> list[tuple[ProposedContext, ...]]:
    """Return what to propose, one tuple an association, the likeliest first.

    `sop_classes` are those of what is asked for, None where they are unknown; those that are not for storage are left out.
    `transfer_syntaxes` are all that may be proposed, in the order in which they are.
    """
    syntaxes = sorted(transfer_syntaxes, key=lambda syntax: syntax not in USUAL_SYNTAXES)
    if sop_classes is None:
        return _associations(_any_class(syntaxes))
    classes = sorted(filter(is_storage, sop_classes))
    return _associations(_context(sop_class, (syntax,)) for syntax in syntaxes for sop_class in classes)


def _any_class(syntaxes: Sequence[str]) -> Iterator[ProposedContext]:
    usual = [syntax for syntax in syntaxes if syntax in USUAL_SYNTAXES]
    uncompressed = tuple(syntax for syntax in usual if syntax in UNCOMPRESSED)
    compressed = tuple(syntax for syntax in usual if syntax not in UNCOMPRESSED)
    kinds = (uncompressed, compressed) if usual[0] in UNCOMPRESSED else (compressed, uncompressed)
    for sop_class in dict.fromkeys((*_USUAL_CLASSES, *STORAGE)):
        yield from (_context(sop_class, kind) for kind in kinds)


def _context(sop_class: str, syntaxes: tuple[str, ...]) -> ProposedContext:
    return ProposedContext(sop_class, syntaxes, scp_role=True)


def _associations(contexts: Iterable[ProposedContext]) -> list[tuple[ProposedContext, ...]]:
    each = iter(contexts)
    batches = iter(lambda: tuple(islice(each, STORAGE_CONTEXTS)), ())
    return [(GET_CONTEXT, *batch) for batch in batches]
