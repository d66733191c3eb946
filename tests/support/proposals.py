"""Presentation contexts that tests propose to a source: those of the gateway, and those of the Patient Root beside them."""

from __future__ import annotations

from gateway.association.upper.contexts import LITTLE_ENDIAN, STUDY_ROOT_CONTEXTS, VERIFICATION_CONTEXTS, ProposedContext

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_CONTEXTS = (ProposedContext(PATIENT_ROOT_FIND, LITTLE_ENDIAN), ProposedContext(PATIENT_ROOT_MOVE, LITTLE_ENDIAN))
QUERY_RETRIEVE_CONTEXTS = VERIFICATION_CONTEXTS + STUDY_ROOT_CONTEXTS + PATIENT_ROOT_CONTEXTS
