"""Plays a requestor's part of a transcript to an acceptor, and notes what it answers.

The next turn is sent when everything that is due for the ones before has come, or when it is clear that it will not.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.differential import reference
from tests.differential.reference import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RP
from tests.differential.transcript import split
from tests.support.ports import HOST

ANSWER_S = 2.0
"""Seconds for an answer that is due, before the requestor goes on without it."""

END_S = 30.0
"""Seconds for an acceptor to end, once its peer has said everything."""


@dataclass
class Answers:
    """The answers of an acceptor: its accepted contexts, its responses, its last word.

    `contexts` is ID to (result, transfer syntax) of the A-ASSOCIATE-AC, None without one. `responses` are (Command Field, Message
    ID, Status). `end` is released, aborted, rejected, closed, or hung where it never ended.
    """

    port: int = 0
    contexts: dict[int, tuple[int, str]] | None = None
    rejection: tuple[int, ...] = ()
    responses: list[tuple[int, int, int]] = field(default_factory=list)
    end: str = ""


def play(
    port: int, turns: Sequence[Sequence[bytes]], *, chunks: random.Random | None = None, answer_s: float = ANSWER_S
) -> Answers:
    """Play `turns`, each a list of PDUs; with `chunks` the bytes go out in random portions."""
    with socket.create_connection((HOST, port), 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        player = _Player(sock)
        sent = b""
        for turn in turns:
            sent += b"".join(turn)
            player.send(b"".join(turn), chunks)
            player.hear(_due(sent), answer_s)
            if player.answers.end:
                break
        player.finish()
        return player.answers


def _due(stream: bytes) -> int:
    """Return how many PDUs and messages the requestor has to get for what it sent."""
    pdus = split(stream)
    if not pdus:
        return 0
    reading = reference.read(b"".join(pdus[1:]))
    asked = [one for one in reading.messages if one.operation != reference.C_CANCEL and not one.operation & reference.RESPONSE]
    # Any other end of an association is an answer, too.
    return 1 + len(asked) + (reading.end in ("released", "violation"))


class _Player:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answers = Answers(sock.getsockname()[1])
        self.buffer = b""
        self.heard = 0
        self.command = b""

    def send(self, data: bytes, chunks: random.Random | None) -> None:
        try:
            for portion in _portions(data, chunks):
                self.sock.sendall(portion)
        except OSError:
            # It is gone; what it said before is still to be read.
            return

    def hear(self, due: int, wait_s: float) -> None:
        """Take answers until `due` came, the association ended, or nothing came for `wait_s`."""
        while self.heard < due and not self.answers.end:
            self.sock.settimeout(wait_s)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            if not data:
                self.answers.end = "closed"
                return
            self._take(data)

    def finish(self) -> None:
        """Say that nothing more comes, and wait for the end."""
        if self.answers.end:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.answers.end = "closed"
            return
        deadline = time.monotonic() + END_S
        while not self.answers.end and (left := deadline - time.monotonic()) > 0:
            self.hear(self.heard + 1, left)
        self.answers.end = self.answers.end or "hung"

    def _take(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 6:
            kind, length = struct.unpack_from(">BxI", self.buffer)
            if len(self.buffer) < 6 + length:
                return
            body, self.buffer = self.buffer[6 : 6 + length], self.buffer[6 + length :]
            self._pdu(kind, body)

    def _pdu(self, kind: int, body: bytes) -> None:
        if kind == P_DATA:
            self._fragments(body)
            return
        self.heard += 1
        if kind == ASSOCIATE_AC:
            self.answers.contexts = dict(answered_contexts(body))
        elif kind == ASSOCIATE_RJ:
            self.answers.end, self.answers.rejection = "rejected", tuple(body[1:4])
        elif kind in (ABORT, RELEASE_RP):
            self.answers.end = "aborted" if kind == ABORT else "released"

    def _fragments(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            size, _, control = struct.unpack_from(">IBB", body, at)
            if control & 1:
                self.command += body[at + 6 : at + 4 + size]
            if control & 3 == 3:
                command, self.command = reference.elements(self.command), b""
                fields = (reference.COMMAND_FIELD, reference.RESPONDED_ID, reference.STATUS)
                operation, answered, status = (reference.word(command, number) for number in fields)
                self.answers.responses.append((operation, answered, status))
                self.heard += 1
            at += 4 + size


def _portions(data: bytes, chunks: random.Random | None) -> Iterable[bytes]:
    if chunks is None:
        yield data
        return
    while data:
        size = chunks.choice((1, 2, 5, 6, 7, 11, 12, 13, 100, 1000, 4096, 10000))
        yield data[:size]
        data = data[size:]


def answered_contexts(body: bytes) -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield ID, result and transfer syntax of each presentation context in an A-ASSOCIATE-AC (PS3.8 §9.3.3.2)."""
    at = 68
    while at + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        part = body[at + 4 : at + 4 + length]
        if kind == 0x21:
            # The transfer syntax of a context that was not accepted is not significant.
            yield part[0], (part[2], part[8:].decode("latin-1").rstrip("\0") if part[2] == 0 else "")
        at += 4 + length
