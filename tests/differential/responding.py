"""Plays an acceptor's part of a transcript to a requestor that is alive: each turn when what it answered in the recording came."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.differential import reference
from tests.differential.transcript import ACCEPTOR, Turn
from tests.support.ports import HOST

PATIENCE_S = 20.0

_LAST_WORDS = (reference.ASSOCIATE_RJ, reference.RELEASE_RP, reference.ABORT)
"""After these it is the requestor that closes the connection (PS3.8 §9.2, AA-2, AR-3)."""


@contextmanager
def acceptor(turns: Sequence[Turn]) -> Iterator[int]:
    """Yield the port of an acceptor for one association, which says what the acceptor of `turns` said."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=_serve, args=(listener, turns))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()


def _serve(listener: socket.socket, turns: Sequence[Turn]) -> None:
    with listener.accept()[0] as connection:
        connection.settimeout(PATIENCE_S)
        try:
            _converse(connection, turns)
            if not turns or turns[-1].pdus[-1][0] not in _LAST_WORDS:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                continue
        except OSError:
            # The requestor gave up, which is its right.
            return


def _converse(connection: socket.socket, turns: Sequence[Turn]) -> None:
    heard, wanted = b"", 0
    for turn in turns:
        if turn.sender == ACCEPTOR:
            connection.sendall(b"".join(turn.pdus))
            continue
        wanted += _said(b"".join(turn.pdus))
        while _said(heard) < wanted:
            data = connection.recv(65536)
            if not data:
                return
            heard += data


def _said(stream: bytes) -> int:
    """Return how many things a requestor said that an acceptor answers: PDUs but P-DATA-TF, and whole messages."""
    others, data, at = 0, b"", 0
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxI", stream, at)
        part = stream[at : at + 6 + length]
        if kind == reference.P_DATA:
            data += part
        elif len(part) == 6 + length:
            others += 1
        at += 6 + length
    return others + len(reference.read(data).messages)
