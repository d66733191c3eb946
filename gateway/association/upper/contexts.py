"""Presentation contexts to propose (PS3.8 §7.1.1.13): what a batch needs, split over associations. Pure.

A context for storage carries exactly one transfer syntax, so that what the peer accepted says exactly what may be sent as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import AllStoragePresentationContexts

MAX_CONTEXTS = 128
"""PS3.8 §9.3.2.2: context IDs are the odd numbers from 1 to 255."""

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance UID of the Storage Commitment Push Model (PS3.4 §J.3.5)."""

STORAGE_SOP_CLASSES: tuple[str, ...] = tuple(sorted(str(context.abstract_syntax) for context in AllStoragePresentationContexts))
"""Every storage SOP class of the standard (PS3.4 §B.5); private ones exist beside them."""

LITTLE_ENDIAN: tuple[str, ...] = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""The transfer syntaxes of everything but storage, best first; every peer has the second (PS3.5 §10.1)."""


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One SOP class with the transfer syntaxes to choose from, and the roles that we ask for (PS3.7 §D.3.3.4).

    Without a role the requestor is the SCU, which is the default of PS3.7.
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    scu_role: bool = False
    scp_role: bool = False


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """One SOP class in one transfer syntax, as both sides agreed, under the ID that every PDV carries.

    `as_scu` and `as_scp` are the roles that the requestor may play in it (PS3.7 §D.3.3.4).
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    as_scu: bool = True
    as_scp: bool = False


VERIFICATION_CONTEXTS = (ProposedContext(VERIFICATION, LITTLE_ENDIAN),)
COMMITMENT_CONTEXTS = (ProposedContext(STORAGE_COMMITMENT, LITTLE_ENDIAN),)
STUDY_ROOT_CONTEXTS = (ProposedContext(STUDY_ROOT_FIND, LITTLE_ENDIAN), ProposedContext(STUDY_ROOT_MOVE, LITTLE_ENDIAN))


def plan_contexts(pairs: Iterable[tuple[str, str]], *, limit: int = MAX_CONTEXTS) -> list[tuple[ProposedContext, ...]]:
    """Return the contexts that (SOP class, transfer syntax) `pairs` need, one tuple an association of at most `limit` contexts.

    The order depends on the set of pairs only: sorted by SOP class, then transfer syntax, each pair once. No pairs, no tuple.

    Raises:
        ValueError: `limit` is not from 1 to 128.
    """
    if not 1 <= limit <= MAX_CONTEXTS:
        raise ValueError(f"an association has 1 to {MAX_CONTEXTS} presentation contexts, not {limit}")
    contexts = iter([ProposedContext(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in sorted(set(pairs))])
    return list(iter(lambda: tuple(islice(contexts, limit)), ()))
