"""Fuzz target: whatever an acceptor answers, through the requestor: it must end, and raise only what its contract names.

The first byte of an input chooses the operations; the rest is what the acceptor says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset

from gateway.association.dimse.commitment import CommitmentReport, InstanceReference
from gateway.association.scu import requestor
from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor
from gateway.association.upper.contexts import COMMITMENT_CONTEXTS, ProposedContext
from gateway.core.errors import AssociationError
from tests.differential import reference
from tests.differential.stock import CT, LITTLE, abstract_syntaxes
from tests.differential.transcript import ACCEPTOR, transcripts
from tests.fuzz.played import Answering
from tests.support.proposals import QUERY_RETRIEVE_CONTEXTS

DEADLINES = Deadlines(connect_s=5.0, associate_s=5.0, response_s=5.0, send_s=5.0, release_s=5.0)

PREFIX_BYTES = 1
"""Length of the part of an input before the stream."""

Operation = Callable[[Requestor], None]


def _query() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", ""
    return identifier


def _find(association: Requestor) -> None:
    for match in itertools.islice(association.find(_query()), 100):
        match.get("StudyInstanceUID")


def _find_one(association: Requestor) -> None:
    """Leave a C-FIND early, which cancels it."""
    for _ in association.find(_query()):
        break


def _move(association: Requestor) -> None:
    for response in association.move(_query(), destination_ae="ELSE", message_id=1, response_s=5.0):
        assert isinstance(response.failed_uids, tuple)


def _commit(association: Requestor) -> None:
    association.request_commitment("1.2.3", [InstanceReference(CT, "1.2.3.4")])
    _await_event(association)


def _await_event(association: Requestor) -> None:
    report = association.next_event(0.0)
    assert report is None or isinstance(report, CommitmentReport)


OPERATIONS: tuple[Operation, ...] = (lambda association: association.echo(), _find, _find_one, _move, _commit, _await_event)
CONTEXTS = (*QUERY_RETRIEVE_CONTEXTS[:3], *COMMITMENT_CONTEXTS, ProposedContext(CT, (LITTLE[0],)))


def seeds() -> Iterator[bytes]:
    """Yield what real acceptors answered, with each of the operations; contexts are numbered as ours would be."""
    order = [context.abstract_syntax for context in CONTEXTS]
    for transcript in transcripts(with_operations=True):
        answers = b"".join(pdu for turn in transcript.of(ACCEPTOR) for pdu in turn)
        numbers = [2 * order.index(uid) + 1 for uid in abstract_syntaxes(transcript.operations)]
        for chosen in range(len(OPERATIONS)):
            yield bytes([chosen]) + _renumbered(answers, numbers)


def _renumbered(stream: bytes, numbers: list[int]) -> bytes:
    """Return an acceptor's stream with its contexts 1, 3, … under the IDs `numbers`."""
    changed, at = bytearray(stream), 0
    for kind, body in reference.pdus(stream):
        at += 6
        if kind == reference.ASSOCIATE_AC:
            inner = 68
            while inner < len(body):
                if body[inner] == 0x21:
                    changed[at + inner + 4] = numbers[body[inner + 4] // 2]
                inner += 4 + int.from_bytes(body[inner + 2 : inner + 4], "big")
        elif kind == reference.P_DATA:
            inner = 0
            while inner < len(body):
                changed[at + inner + 4] = numbers[body[inner + 4] // 2]
                inner += 4 + int.from_bytes(body[inner : inner + 4], "big")
        at += len(body)
    return bytes(changed)


def one_input(data: bytes) -> None:
    """Associate with an acceptor that says `data` and closes, and ask for operations."""
    if not data:
        return
    stream = Answering(data[1:])
    dialled, requestor.dial = requestor.dial, lambda remote, deadlines: stream
    try:
        _ask(data[0])
    except AssociationError:
        pass
    finally:
        requestor.dial = dialled
    assert stream.closed, "the connection is left open"


def _ask(chosen: int) -> None:
    with requestor.associate(RemoteAE("PEER", "127.0.0.1", 104), "GATEWAY", CONTEXTS, deadlines=DEADLINES) as association:
        OPERATIONS[chosen % len(OPERATIONS)](association)
        if chosen & 0x80:
            association.echo()
