"""A scripted SCP: a real DICOM acceptor whose every answer, refusal and abort a test decides."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from tests.support.ports import HOST
from tests.support.raw import (
    ABORT,
    APPLICATION_CONTEXT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    C_ECHO_RQ,
    C_STORE_RSP,
    IMPLICIT_LE,
    P_DATA,
    RELEASE_RP,
    VERIFICATION,
    Connection,
    Ended,
    command_set,
    item,
    number,
    parse_command,
    pdu,
    pdv,
    user_information,
    words,
)

OTHER_SERVICES = ("1.2.840.10008.5.1.4.1.2.", "1.2.840.10008.1.20.")
"""Query/Retrieve and Storage Commitment: this SCP has neither, like a plain Storage SCP."""


@dataclass
class Received:
    """A C-STORE as `ScriptedScp` got it."""

    uid: str
    sop_class: str
    transfer_syntax: str
    length: int
    association: int
    move_originator_ae: str
    data_set: bytes = b""


Answer = int | str
"""A status, or "abort" (A-ABORT instead of an answer), "close" (the connection just ends), "hang" (no answer until the end)."""


@dataclass
class ScriptedScp:
    """An SCP on a port of its own. Replace the callables to script it; `stores` is what it got, in order.

    `negotiate(abstract, transfer syntaxes)` picks one or refuses with None. `answer(nth, store)` decides each C-STORE after it
    arrived, `interrupt(nth)` before its data set is read. `admit(nth)` may return the (result, source, reason) of a rejection, or
    "close".
    """

    negotiate: Callable[[str, Sequence[str]], str | None] = lambda _abstract, syntaxes: syntaxes[0]
    answer: Callable[[int, Received], Answer] = lambda _nth, _store: 0x0000
    interrupt: Callable[[int], Answer | None] = lambda _nth: None
    admit: Callable[[int], tuple[int, int, int] | str | None] = lambda _nth: None
    keep_data: bool = False
    tls: ssl.SSLContext | None = None
    stores: list[Received] = field(default_factory=list)
    associations: int = 0
    released: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    @property
    def uids(self) -> list[str]:
        """The SOP Instance UIDs in the order they came."""
        with self._lock:
            return [store.uid for store in self.stores]

    @contextmanager
    def running(self, port: int = 0) -> Iterator[Self]:
        """Listen until the context ends."""
        listener = socket.create_server((HOST, port))
        self.port = listener.getsockname()[1]
        acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        acceptor.start()
        try:
            yield self
        finally:
            self._over.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            acceptor.join(5)
            self._drop_all()

    def _drop_all(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for sock in connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _accept(self, listener: socket.socket) -> None:
        while not self._over.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection = Connection(sock if self.tls is None else self.tls.wrap_socket(sock, server_side=True))
        except OSError:
            sock.close()
            return
        with self._lock:
            self.associations += 1
            nth = self.associations
            self._connections.add(connection.sock)
        try:
            # A requestor that ends the association ends the script with it.
            with contextlib.suppress(Ended, OSError):
                self._associated(connection, nth)
        finally:
            with self._lock:
                self._connections.discard(connection.sock)
            connection.close()

    def _associated(self, connection: Connection, nth: int) -> None:
        verdict = self.admit(nth)
        if verdict == "close":
            return
        kind, body = connection.receive()
        assert kind == ASSOCIATE_RQ
        if isinstance(verdict, tuple):
            connection.send(pdu(ASSOCIATE_RJ, bytes([0, *verdict])))
            return
        accepted, reply = self._negotiated(body)
        connection.send(reply)
        try:
            self._messages(connection, nth, accepted)
        except Ended as end:
            if str(end) == "release":
                with self._lock:
                    self.released += 1
                connection.send(pdu(RELEASE_RP, bytes(4)))

    def _negotiated(self, body: bytes) -> tuple[dict[int, str], bytes]:
        accepted, items, at = {}, item(0x10, APPLICATION_CONTEXT.encode()), 68
        while at < len(body):
            kind, length = struct.unpack_from(">BxH", body, at)
            if kind == 0x20:
                context_id, abstract, syntaxes = _proposed(body[at + 4 : at + 4 + length])
                chosen = None if abstract.startswith(OTHER_SERVICES) else syntaxes[0]
                if chosen is not None and abstract != VERIFICATION:
                    chosen = self.negotiate(abstract, syntaxes)
                if chosen is not None:
                    accepted[context_id] = chosen
                result = 0 if chosen is not None else 4
                items += item(0x21, bytes([context_id, 0, result, 0]) + item(0x40, (chosen or IMPLICIT_LE).encode()))
            at += 4 + length
        return accepted, pdu(ASSOCIATE_AC, body[:68] + items + user_information(131072))

    def _messages(self, connection: Connection, nth: int, accepted: dict[int, str]) -> None:
        command, length, kept = b"", 0, []
        elements: dict[int, bytes] = {}
        for context_id, fragment, is_command, last in connection.messages():
            if is_command:
                command += fragment
                if last:
                    elements, command, length, kept = parse_command(command), b"", 0, []
                    if number(elements, "command_field") == C_ECHO_RQ:
                        connection.send(_response(context_id, elements, 0))
                    elif not self._carry_on(connection, self.interrupt(len(self.stores) + 1)):
                        return
                continue
            length += len(fragment)
            if self.keep_data:
                kept.append(fragment)
            if last:
                store = _received(elements, accepted[context_id], length, nth, b"".join(kept))
                with self._lock:
                    self.stores.append(store)
                    count = len(self.stores)
                answer = self.answer(count, store)
                if not self._carry_on(connection, answer):
                    return
                connection.send(_response(context_id, elements, int(answer)))

    def _carry_on(self, connection: Connection, answer: Answer | None) -> bool:
        if answer is None or isinstance(answer, int):
            return True
        if answer == "hang":
            self._over.wait(120)
        elif answer == "abort":
            connection.send(pdu(ABORT, bytes([0, 0, 2, 0])))
        return False


def _proposed(body: bytes) -> tuple[int, str, list[str]]:
    context_id, at, abstract, syntaxes = body[0], 4, "", []
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        value = body[at + 4 : at + 4 + length].decode().rstrip("\0")
        if kind == 0x30:
            abstract = value
        else:
            syntaxes.append(value)
        at += 4 + length
    return context_id, abstract, syntaxes


def _received(elements: dict[int, bytes], syntax: str, length: int, nth: int, data_set: bytes) -> Received:
    return Received(
        uid=words(elements, "affected_sop_instance"),
        sop_class=words(elements, "affected_sop_class"),
        transfer_syntax=syntax,
        length=length,
        association=nth,
        move_originator_ae=words(elements, "move_originator_ae"),
        data_set=data_set,
    )


def _response(context_id: int, request: dict[int, bytes], status: int) -> bytes:
    field_ = number(request, "command_field") | 0x8000
    more = {"affected_sop_instance": words(request, "affected_sop_instance")} if field_ == C_STORE_RSP else {}
    elements = command_set(
        affected_sop_class=words(request, "affected_sop_class"),
        command_field=field_,
        responded_message_id=number(request, "message_id"),
        data_set_type=0x0101,
        status=status,
        **more,
    )
    return pdu(P_DATA, pdv(context_id, elements, command=True, last=True))
