"""Fuzz target: whatever a source sends where it was asked by C-GET: instances are taken in, and nothing else gets through.

An input is what follows the A-ASSOCIATE-AC. It must end, raise only what the requestor's contract names, hand on the bytes that
`reference` reads in the stream and no others, and keep or discard every instance.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from gateway.association.dimse.services import AssociationInfo
from gateway.association.scu import requestor
from gateway.association.scu.offers import offers
from gateway.association.scu.requestor import RemoteAE, associate
from gateway.association.upper.associate import ContextResult, decode_request, encode_accept, encode_request
from gateway.core.errors import AssociationError
from tests.differential import reference
from tests.differential.stock import CT
from tests.differential.transcript import REQUESTOR, split, transcripts
from tests.fuzz.acceptor import IMPOSSIBLE, check_instances
from tests.fuzz.log import watched
from tests.fuzz.played import Answering
from tests.fuzz.requestor import DEADLINES
from tests.support.accepting import Storage
from tests.support.raw import EXPLICIT_LE, P_DATA, command_set, pdu, pdv

CONTEXTS = offers([CT], (EXPLICIT_LE, "1.2.840.10008.1.2.4.90"))[0]
GET_ID, STORAGE_ID = 1, 3
SOURCE = AssociationInfo("get", "PEER", "GATEWAY", "127.0.0.1", source="peer")
MESSAGE_ID = 7


def _accepted() -> bytes:
    request = decode_request(encode_request("GATEWAY", "PEER", CONTEXTS, max_pdu_bytes=131072)[6:])
    results = [ContextResult(each.context_id, 0, each.transfer_syntaxes[0]) for each in request.contexts]
    return encode_accept(request, results, {CT: (False, True)}, max_pdu_bytes=131072)


ACCEPTED = _accepted()


def _response(status: int) -> bytes:
    command = command_set(command_field=0x8010, responded_message_id=MESSAGE_ID, data_set_type=0x0101, status=status)
    return pdu(P_DATA, pdv(GET_ID, command, command=True, last=True))


def seeds() -> Iterator[bytes]:
    """Yield what real requestors sent, as if it were sub-operations, with responses around it."""
    for transcript in transcripts(with_operations=False):
        sent = [each for turn in transcript.of(REQUESTOR) for each in turn if each[0] == P_DATA]
        yield b"".join([_response(0xFF00), *map(_in_storage, sent), _response(0x0000)])


def _in_storage(data: bytes) -> bytes:
    """Return a P-DATA-TF PDU with all that it holds in the context for storage."""
    changed, at = bytearray(data), 6
    while at + 5 <= len(changed):
        changed[at + 4] = STORAGE_ID
        at += 4 + int.from_bytes(changed[at : at + 4], "big")
    return bytes(changed)


def one_input(data: bytes) -> None:
    """Ask a source that accepts, sends `data` and closes."""
    storage, stream = Storage(), Answering(ACCEPTED + data)
    dialled, requestor.dial = requestor.dial, lambda remote, deadlines: stream
    try:
        with watched(IMPOSSIBLE):
            _get(storage)
    except AssociationError:
        pass
    finally:
        requestor.dial = dialled
    assert stream.closed, "the connection is left open"
    assert all(reference.pdus(answer) for answer in split(bytes(stream.sent)))
    check_instances(reference.read(data), storage)


def _get(storage: Storage) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.3"
    with associate(RemoteAE("PEER", "127.0.0.1", 104), "GATEWAY", CONTEXTS, deadlines=DEADLINES) as association:
        for response in association.get(identifier, storage=storage, info=SOURCE, message_id=MESSAGE_ID):
            assert isinstance(response.failed_uids, tuple)
