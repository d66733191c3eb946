"""The instances that a peer lists: C-FIND at IMAGE level, series by series (PS3.4 §C.4.1.2).

A query below STUDY level carries every unique key above its own, since relational queries are optional (PS3.4 §C.4.1.2.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from gateway.association.scu.query import identifier, image_identifier, text
from gateway.association.scu.requestor import Requestor
from gateway.association.upper.contexts import LITTLE_ENDIAN, STUDY_ROOT_FIND, ProposedContext

FIND_CONTEXT = ProposedContext(STUDY_ROOT_FIND, LITTLE_ENDIAN)


def instances_of_series(association: Requestor, study_instance_uid: str, series_instance_uid: str) -> set[str]:
    """Return the SOP Instance UIDs that the peer lists for the series.

    Raises:
        NoPresentationContext: the association has no context for C-FIND.
        DimseFailed: the peer refuses or fails the query.
        AssociationError: the association broke.
    """
    query = image_identifier(study_instance_uid, series_instance_uid)
    return {text(match, "SOPInstanceUID") for match in association.find(query) if _answers(match, query)} - {""}


def has_study(association: Requestor, study_instance_uid: str) -> bool:
    """Tell whether the peer lists the study. Raises like `instances_of_series`."""
    query = identifier("STUDY", {"StudyInstanceUID": study_instance_uid})
    return any(text(match, "StudyInstanceUID") == study_instance_uid for match in association.find(query))


def listed_studies(association: Requestor, study_instance_uids: Sequence[str]) -> set[str]:
    """Return which of the studies the peer lists when it is asked for all at once, by a list of UIDs (PS3.4 §C.2.2.2.2).

    A peer that does not match by lists may leave out any of them. Raises like `instances_of_series`.
    """
    query = identifier("STUDY", {"StudyInstanceUID": "\\".join(study_instance_uids)})
    return {text(match, "StudyInstanceUID") for match in association.find(query)} & set(study_instance_uids)


def is_listed(association: Requestor, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool:
    """Tell whether the peer lists this one instance. Raises like `instances_of_series`."""
    query = image_identifier(study_instance_uid, series_instance_uid, sop_instance_uid)
    return sop_instance_uid in {text(match, "SOPInstanceUID") for match in association.find(query) if _answers(match, query)}


def _answers(match: Dataset, query: Dataset) -> bool:
    """Tell whether a match is of the series that was asked for: some peers ignore keys and answer with what they have."""
    keys = ("StudyInstanceUID", "SeriesInstanceUID")
    return all(text(match, key) in ("", text(query, key)) for key in keys)


def answers_find(association: Requestor) -> bool:
    """Tell whether the peer accepted a context for C-FIND on this association."""
    return association.context_for(STUDY_ROOT_FIND) is not None
