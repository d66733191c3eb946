"""Results of a transcript on either path, in one form, so that the two can be compared."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from gateway.association.dimse.command import CommandSet
from gateway.association.dimse.message import Message, Receiver, Sink
from gateway.association.dimse.services import Limits
from gateway.association.scp import handshake
from gateway.association.upper.stream import Stream
from tests.differential.feeding import Answers, play
from tests.differential.stock import digest, trimmed
from tests.differential.stock_process import StockPynetdicom
from tests.support.accepting import accepting

KEYWORDS = set(CommandSet.__annotations__)
"""The command elements that PS3.7 §E.1 names; others are of no account."""

LIMITS = Limits(idle_timeout_s=20.0, pdu_timeout_s=20.0, handshake_timeout_s=20.0, send_timeout_s=20.0)

PATIENT_S = 20.0
"""Seconds for an answer of stock pynetdicom on a busy machine."""

Turns = Sequence[Sequence[bytes]]


@dataclass(frozen=True)
class Result:
    """`messages` are (context ID, command, digest of the data set), `instances` what the storage service was given and took.

    `end` is how it ended: released, rejected, or refused, which is by an abort, a closed connection, or not at all.
    """

    contexts: dict[int, tuple[int, str]] | None
    rejection: tuple[int, ...]
    messages: list[tuple[int, dict[str, Any], str | None]]
    instances: list[tuple[str, str, str, str | None]]
    responses: list[tuple[int, int, int]]
    end: str
    hung: bool = field(default=False, compare=False)


def _result(answers: Answers, heard: list[Any], instances: list[Any]) -> Result:
    # Messages in a context that was not accepted reach no service: how many are read before the abort does not matter.
    accepted = {number for number, (result, _) in (answers.contexts or {}).items() if result == 0}
    messages = [message for message in heard if message[0] in accepted]
    end = answers.end if answers.end in ("released", "rejected") else "refused"
    return Result(answers.contexts, answers.rejection, messages, instances, answers.responses, end, answers.end == "hung")


def of_stock(stock: StockPynetdicom, turns: Turns, *, chunks: random.Random | None = None, answer_s: float = PATIENT_S) -> Result:
    """Play `turns` to stock pynetdicom, which may take `answer_s` for each answer."""
    answers = play(stock.port, turns, chunks=chunks, answer_s=answer_s)
    taken = stock.take(answers.port)
    messages = [
        (one["context_id"], {key: value for key, value in one["command"].items() if key in KEYWORDS}, one["data"])
        for one in taken["messages"]
    ]
    instances = [(one["sop_class"], one["sop_instance"], one["transfer_syntax"], one["data"]) for one in taken["instances"]]
    return _result(answers, messages, instances)


class Tap(Receiver):
    """A receiver that notes each whole message, by the ports of both ends: others may call from the same port at the same time."""

    heard: ClassVar[dict[tuple[int, int], list[tuple[int, dict[str, Any], str | None]]]] = {}

    def __init__(self, stream: Stream, **settings: Any) -> None:
        super().__init__(stream, **settings)
        ends = int(stream.peer.rpartition(":")[2]), stream._socket.getsockname()[1]
        self._heard = self.heard.setdefault(ends, [])

    def receive_message(self, wait_s: float) -> Message | None:
        message = super().receive_message(wait_s)
        if message is not None and not message.has_data_set:
            self._keep(message, None)
        return message

    def receive_data_set(self, message: Message, sink: Sink) -> int:
        data = bytearray()

        def both(fragments: Sequence[memoryview]) -> None:
            for fragment in fragments:
                data.extend(fragment)
            sink(fragments)

        total = super().receive_data_set(message, both)
        assert total == len(data)
        self._keep(message, bytes(data))
        return total

    def _keep(self, message: Message, data: bytes | None) -> None:
        command = {key: trimmed(value) if isinstance(value, str) else value for key, value in message.command.items()}
        command = {key: list(value) if isinstance(value, tuple) else value for key, value in command.items()}
        self._heard.append((message.context_id, command, digest(data)))


@contextmanager
def tapped() -> Iterator[None]:
    """Note the messages of every association that is accepted meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handshake, "Receiver", Tap)
        yield


def of_ours(turns: Turns, *, chunks: random.Random | None = None) -> Result:
    """Play `turns` to an acceptor of the gateway, within `tapped`; every thread of it has ended after that."""
    with accepting(LIMITS) as gateway:
        threads = gateway.acceptor._threads
        answers = play(gateway.port, turns, chunks=chunks)
    assert not any(thread.is_alive() for thread in threads), "a thread of the acceptor goes on"
    assert threading.active_count() < 200
    assert all(one.state != "open" for one in gateway.storage.instances), "an instance was neither kept nor discarded"
    instances = [
        (one.request.sop_class_uid, one.request.sop_instance_uid, one.request.transfer_syntax_uid, digest(bytes(one.data_set)))
        for one in gateway.storage.committed
    ]
    return _result(answers, Tap.heard.pop((answers.port, gateway.port), []), instances)
