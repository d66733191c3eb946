"""A TCP proxy that notes what two DICOM programs say to each other, PDU by PDU, in the order in which it got through."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.differential.transcript import ACCEPTOR, REQUESTOR, Turn
from tests.support.ports import HOST, free_port

PATIENCE_S = 60.0


@dataclass
class Conversation:
    """One connection: the PDUs in order with who sent each, and what of a PDU was there at the end."""

    said: list[tuple[str, bytes]] = field(default_factory=list)
    rest: dict[str, bytes] = field(default_factory=lambda: {REQUESTOR: b"", ACCEPTOR: b""})

    def hear(self, sender: str, data: bytes) -> None:
        rest = self.rest[sender] + data
        while len(rest) >= 6 and len(rest) >= 6 + struct.unpack_from(">I", rest, 2)[0]:
            size = 6 + struct.unpack_from(">I", rest, 2)[0]
            self.said.append((sender, rest[:size]))
            rest = rest[size:]
        self.rest[sender] = rest

    def turns(self) -> tuple[Turn, ...]:
        """Return what was said, with neighbouring PDUs of one sender in one turn."""
        said = self.said + [(sender, rest) for sender, rest in self.rest.items() if rest]
        turns: list[Turn] = []
        for sender, pdu in said:
            if turns and turns[-1].sender == sender:
                turns[-1] = Turn(sender, (*turns[-1].pdus, pdu))
            else:
                turns.append(Turn(sender, (pdu,)))
        return tuple(turns)

    def heard(self) -> int:
        """Return how many bytes came from the requestor."""
        return sum(len(pdu) for sender, pdu in self.said if sender == REQUESTOR) + len(self.rest[REQUESTOR])


class Proxy:
    """Takes connections on `port` and passes them on to the port `to`; `conversations` are in the order in which they began.

    `watch` is called with the conversation whenever bytes came and may end the connection by returning True.
    """

    def __init__(self, to: int, *, port: int = 0, watch: Callable[[Conversation], bool] = lambda _conversation: False) -> None:
        self.to = to
        self.port = port or free_port()
        self.conversations: list[Conversation] = []
        self._watch = watch
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server((HOST, self.port))
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                requestor, _ = self._listener.accept()
            except OSError:
                return
            conversation = Conversation()
            self.conversations.append(conversation)
            self._spawn(self._pass_on, requestor, conversation)

    def _pass_on(self, requestor: socket.socket, conversation: Conversation) -> None:
        with (
            requestor,
            socket.create_connection((HOST, self.to), PATIENCE_S) as acceptor,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(requestor, selectors.EVENT_READ, (REQUESTOR, acceptor))
            selector.register(acceptor, selectors.EVENT_READ, (ACCEPTOR, requestor))
            while True:
                for key, _ in selector.select(PATIENCE_S):
                    sender, other = key.data
                    try:
                        data = key.fileobj.recv(4096)  # type: ignore[union-attr]
                        other.sendall(data)
                    except OSError:
                        return
                    conversation.hear(sender, data)
                    if not data or self._watch(conversation):
                        return
