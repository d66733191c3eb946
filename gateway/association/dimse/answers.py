"""Responses to DIMSE requests (PS3.7 §9.3, §10.3). Pure."""

from __future__ import annotations

from gateway.association.dimse.command import HAS_DATA_SET, NO_DATA_SET, RESPONSE, CommandSet
from gateway.association.dimse.services import StoreRequest
from gateway.association.dimse.statuses import INVALID_SOP_INSTANCE, MISTYPED_ARGUMENT, SOP_CLASS_NOT_SUPPORTED
from gateway.core.domain import is_ae_title, is_sop_class, is_uid
from gateway.core.errors import Refusal


def response(request: CommandSet, status: int, elements: CommandSet | None = None, *, has_data_set: bool = False) -> CommandSet:
    """Return the response to `request`, which has a Message ID; UIDs that are none are not given back.

    `elements` are added to it, or stand in place of those that it has of the request.
    """
    answer: CommandSet = {
        "CommandField": request["CommandField"] | RESPONSE,
        "MessageIDBeingRespondedTo": request["MessageID"],
        "CommandDataSetType": HAS_DATA_SET if has_data_set else NO_DATA_SET,
        "Status": status,
    }
    sop_class = request.get("AffectedSOPClassUID") or request.get("RequestedSOPClassUID", "")
    if is_uid(sop_class):
        answer["AffectedSOPClassUID"] = sop_class
    instance = request.get("AffectedSOPInstanceUID") or request.get("RequestedSOPInstanceUID", "")
    if is_uid(instance):
        answer["AffectedSOPInstanceUID"] = instance
    if "EventTypeID" in request:
        answer["EventTypeID"] = request["EventTypeID"]
    if elements is not None:
        answer.update(elements)
    return answer


def store_request(command: CommandSet, transfer_syntax: str, *, has_data_set: bool) -> StoreRequest:
    """Return what the C-STORE-RQ `command` asks for (PS3.7 §9.3.1.1).

    Raises:
        Refusal: 0122 or 0117 for a SOP class or instance that is no UID, 0212 without a data set.
    """
    sop_class = command.get("AffectedSOPClassUID", "")
    instance = command.get("AffectedSOPInstanceUID", "")
    if not is_sop_class(sop_class):
        raise Refusal(SOP_CLASS_NOT_SUPPORTED, "the Affected SOP Class UID is no UID")
    if not is_uid(instance):
        raise Refusal(INVALID_SOP_INSTANCE, "the Affected SOP Instance UID is no UID")
    if not has_data_set:
        raise Refusal(MISTYPED_ARGUMENT, "a C-STORE without a data set")
    return StoreRequest(
        message_id=command["MessageID"],
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        transfer_syntax_uid=transfer_syntax,
        move_originator_ae=_printable(command.get("MoveOriginatorApplicationEntityTitle", "")),
        move_originator_message_id=command.get("MoveOriginatorMessageID"),
    )


def _printable(title: str) -> str | None:
    """Return an AE title that correlation may use, None for one that cannot be: it is no reason to refuse the instance."""
    return title if is_ae_title(title) else None
