"""Command sets as they go over the wire."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode, encode

from gateway.association.dimse.answers import response, store_request
from gateway.association.dimse.command import CommandSet, Operation, decode_command, encode_command
from gateway.core.errors import ProtocolError, Refusal
from tests.support.raw import command_set

NUMBERS = st.integers(0, 0xFFFF)
UIDS = st.from_regex(r"[0-9][0-9.]{0,62}[0-9]", fullmatch=True)
TITLES = st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True)
COMMANDS = st.fixed_dictionaries(
    {"CommandField": NUMBERS, "CommandDataSetType": NUMBERS},
    optional={
        "AffectedSOPClassUID": UIDS,
        "RequestedSOPInstanceUID": UIDS,
        "MessageID": NUMBERS,
        "Status": NUMBERS,
        "OffendingElement": st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=3).map(tuple),
        "MoveDestination": TITLES,
        "MoveOriginatorApplicationEntityTitle": TITLES,
        "NumberOfRemainingSuboperations": NUMBERS,
    },
)


@given(COMMANDS)
def test_what_is_encoded_is_decoded_again(command: CommandSet) -> None:
    assert decode_command(encode_command(command)) == command


@given(COMMANDS)
def test_the_encoding_is_that_of_pynetdicom(command: CommandSet) -> None:
    ours = encode_command(command)
    theirs = encode(decode(BytesIO(ours), True, True), True, True)
    assert theirs == ours


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        assert "CommandField" in decode_command(data)
    except ProtocolError as error:
        assert error.reason == 6


def test_unknown_elements_are_passed_over() -> None:
    retired = b"\0\0\x10\0\x08\0\0\0RETIRED "
    known = command_set(command_field=0x30, data_set_type=0x0101)
    assert decode_command(retired + known) == {"CommandField": 0x30, "CommandDataSetType": 0x0101}


FAILED_LIST = b"\x08\0\x58\0\x06\0\0\0" + b"1.2.3\0"


def test_a_failed_list_behind_the_end_of_the_command_is_passed_over() -> None:
    """As Orthanc answers a C-GET that failed."""
    command: CommandSet = {"CommandField": 0x8010, "CommandDataSetType": 0x0101, "Status": 0xC000}
    assert decode_command(encode_command(command) + FAILED_LIST) == command


def test_another_group_anywhere_else_is_refused() -> None:
    """Its place must be the one that the Command Group Length names."""
    encoded = encode_command({"CommandField": 0x8010, "CommandDataSetType": 0x0101})
    for damaged in (
        encoded[:8] + b"\x01" + encoded[9:] + FAILED_LIST,
        encoded[12:] + FAILED_LIST,
        encoded + b"\0" * 8 + FAILED_LIST,
    ):
        with pytest.raises(ProtocolError):
            decode_command(damaged + FAILED_LIST)


def test_padding_is_no_part_of_a_value() -> None:
    data = command_set(command_field=1, data_set_type=1, affected_sop_class="1.2.3\0", move_originator_ae=" PACS   ")
    decoded = decode_command(data)
    assert decoded.get("AffectedSOPClassUID") == "1.2.3"
    assert decoded.get("MoveOriginatorApplicationEntityTitle") == "PACS"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\x08\0\x16\0\x02\0\0\0ab",
        b"\0\0\0\x01\xff\xff\xff\xff",
        b"\0\0\0\x01\x04\0\0\0abcd",
        command_set(command_field=1),
        command_set(data_set_type=1),
    ],
    ids=["empty", "half an element", "another group", "4 GiB", "a number of four bytes", "no data set type", "no command field"],
)
def test_what_is_no_command_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_command(data)


STORE: CommandSet = {
    "CommandField": Operation.C_STORE,
    "MessageID": 4,
    "CommandDataSetType": 1,
    "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "AffectedSOPInstanceUID": "1.2.3",
}


def test_a_response_answers_its_request() -> None:
    assert response(STORE, 0xA700) == {
        "CommandField": 0x8001,
        "MessageIDBeingRespondedTo": 4,
        "CommandDataSetType": 0x0101,
        "Status": 0xA700,
        "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "AffectedSOPInstanceUID": "1.2.3",
    }


HOSTILE = ["", " ", "1.2\n3", "1.2\x003", "1.2\x9b3", "1" * 257, "1.2.*", "1.2.?", "1.2\\1.3", "1.2.3 ", "\x85", "\u0661"]


@pytest.mark.parametrize("uid", HOSTILE)
def test_a_uid_that_is_none_is_not_given_back(uid: str) -> None:
    command: CommandSet = {**STORE, "AffectedSOPInstanceUID": uid}
    assert "AffectedSOPInstanceUID" not in response(command, 0x0117)


@pytest.mark.parametrize("uid", HOSTILE)
def test_a_uid_that_is_none_is_refused_before_anyone_sees_it(uid: str) -> None:
    instance: CommandSet = {**STORE, "AffectedSOPInstanceUID": uid}
    sop_class: CommandSet = {**STORE, "AffectedSOPClassUID": uid}
    with pytest.raises(Refusal) as refused:
        store_request(instance, "1.2.840.10008.1.2.1", has_data_set=True)
    assert refused.value.status == 0x0117
    with pytest.raises(Refusal) as refused:
        store_request(sop_class, "1.2.840.10008.1.2.1", has_data_set=True)
    assert refused.value.status == 0x0122


@pytest.mark.parametrize("title", ["", "A" * 65, "a\nb", "back\\slash"])
def test_a_move_originator_that_is_no_title_costs_only_the_correlation(title: str) -> None:
    command: CommandSet = {**STORE, "MoveOriginatorApplicationEntityTitle": title, "MoveOriginatorMessageID": 7}
    request = store_request(command, "1.2.840.10008.1.2.1", has_data_set=True)
    assert (request.move_originator_ae, request.move_originator_message_id) == (None, 7)
