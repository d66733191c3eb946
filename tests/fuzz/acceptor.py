"""Fuzz target: whatever a requestor sends, through the acceptor's whole path, against the straightforward reader of `reference`.

The handshake, the receiver, the commands, serving with services that keep everything, the last words. It must end, raise nothing,
hand on the bytes that the stream holds and no others, keep or discard every instance, and say the PDU that PS3.8 §9.2 has it say.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.association.dimse.services import Limits
from gateway.association.scp.acceptor import Acceptor
from gateway.association.scp.service_classes import usual
from tests.differential import feeding, reference
from tests.differential.transcript import REQUESTOR, split, transcripts
from tests.fuzz.log import watched
from tests.fuzz.played import Played
from tests.support.accepting import Anyone, Commitment, Storage

IMPOSSIBLE = {"association_failed", "reception_failed"}
"""Events that say that something was raised which no one expected."""


def seeds() -> Iterator[bytes]:
    """Yield what real requestors sent."""
    for transcript in transcripts(with_operations=False):
        yield b"".join(pdu for turn in transcript.of(REQUESTOR) for pdu in turn)


def one_input(data: bytes) -> None:
    """Serve a requestor that sends `data` and closes."""
    storage, commitment = Storage(), Commitment()
    acceptor = Acceptor([], admission=Anyone(), services=usual(storage, commitment), limits=Limits())
    stream = Played(data)
    connection = acceptor._registry.add(stream, "127.0.0.1")
    assert connection is not None
    with watched(IMPOSSIBLE):
        acceptor._run(connection, None)
    assert stream.closed
    assert acceptor.association_count == 0
    check(data, bytes(stream.sent), storage)


def check(data: bytes, sent: bytes, storage: Storage) -> None:
    """Compare what became of `data` with what `reference` reads in it."""
    answers = split(sent)
    assert b"".join(answers) == sent
    assert all(reference.pdus(answer) for answer in answers)
    if not answers or answers[0][0] != reference.ASSOCIATE_AC:
        assert not storage.instances
        assert [answer[0] for answer in answers] in ([], [reference.ASSOCIATE_RJ], [reference.ABORT])
        return
    accepted = dict(feeding.answered_contexts(answers[0][6:]))
    reading = reference.read(data[6 + int.from_bytes(data[2:6], "big") :])
    served = _served(reading, {number for number, (result, _) in accepted.items() if result == 0})
    check_instances(served, storage)
    _check_end(served, answers)


def _served(reading: reference.Reading, accepted: set[int]) -> reference.Reading:
    """Return `reading` up to the first message that ends the association by what it is."""
    served = reference.Reading(end=reading.end, begun=reading.begun)
    for message in [*reading.messages, *([reading.begun] if reading.begun else [])]:
        response = message.operation & reference.RESPONSE or reference.MESSAGE_ID not in message.command
        if message.context_id not in accepted or (response and message.operation != reference.C_CANCEL):
            served.end, served.begun = "violation", None
            return served
        if message is not reading.begun:
            served.messages.append(message)
    return served


def check_instances(served: reference.Reading, storage: Storage) -> None:
    """Make sure that of what `served` holds, instances were kept as they came, and what did not end was discarded."""
    taken = [one for one in storage.instances if one.state == "committed"]
    assert all(one.state in ("committed", "discarded") for one in storage.instances)
    stored = iter([message for message in served.messages if message.operation == 1 and message.data is not None])
    # Those that are refused for what their command says are read, and kept by nobody.
    for one in taken:
        data = bytes(one.data_set)
        assert any(message.data == data and _uid(message) == one.request.sop_instance_uid for message in stored)
    for one in storage.instances[len(taken) :]:
        assert one.state == "discarded"
        assert served.begun is None or (served.begun.data or b"").startswith(bytes(one.data_set))


def _uid(message: reference.Message) -> str:
    return message.command.get(0x1000, b"").decode("latin-1").rstrip("\0 ")


def _check_end(served: reference.Reading, answers: list[bytes]) -> None:
    responses = _responses(answers[1:])
    asked = [one for one in served.messages if one.operation != reference.C_CANCEL]
    assert responses == [(one.operation | reference.RESPONSE, reference.word(one.command, reference.MESSAGE_ID)) for one in asked]
    last = {"released": reference.RELEASE_RP, "violation": reference.ABORT}.get(served.end)
    assert [answer[0] for answer in answers[1:] if answer[0] != reference.P_DATA] == ([last] if last else [])


def _responses(answers: list[bytes]) -> list[tuple[int, int]]:
    data = b"".join(answer for answer in answers if answer[0] == reference.P_DATA)
    reading = reference.read(data)
    assert reading.end == "cut"
    assert reading.begun is None
    return [(one.operation, reference.word(one.command, reference.RESPONDED_ID)) for one in reading.messages]
