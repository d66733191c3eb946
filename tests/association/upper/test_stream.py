"""A connection on which every wait ends: plain, TLS 1.2 and TLS 1.3 alike."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway.association.upper.stream import Stream
from gateway.config.settings import ListenTlsTable, TlsTable
from gateway.core.errors import AssociationAborted, PeerTimeout, TlsFailed
from gateway.security import tls
from tests.association.conftest import tcp_pair
from tests.support.certificates import TestCA
from tests.support.waiting import PATIENCE_S, in_time

KINDS = ("plain", "TLS 1.2", "TLS 1.3")
VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


def contexts(ca: TestCA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    ours, theirs = ca.issue("gateway"), ca.issue("modality")
    return tls.acceptor_context(ListenTlsTable(**ours)), tls.requestor_context(TlsTable(**theirs))


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@contextmanager
def connection(kind: str, ca: TestCA, *, send_s: float = PATIENCE_S) -> Iterator[tuple[Stream, socket.socket]]:
    """Our end as a stream, the peer's as a socket with a timeout."""
    server, client = tcp_pair()
    stream = Stream(server, peer="PEER", send_s=send_s)
    if kind != "plain":
        ours, theirs = contexts(ca)
        theirs.minimum_version = theirs.maximum_version = VERSIONS[kind]
        ready: list[ssl.SSLSocket] = []
        thread = in_background(lambda: ready.append(theirs.wrap_socket(client, server_hostname="localhost")))
        stream.secure(ours, deadline=in_time(), server_side=True)
        thread.join(PATIENCE_S)
        client = ready[0]
        # The session ticket comes before the first bytes; a close with it unread would be a reset.
        stream.send(b"x")
        assert client.recv(1) == b"x"
    with stream, client:
        yield stream, client


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_bytes_arrive_in_both_directions(kind: str, ca: TestCA) -> None:
    content = random.Random(1).randbytes(1_000_000)
    with connection(kind, ca) as (stream, client):
        thread = in_background(lambda: client.sendall(content))
        got = bytearray()
        view = memoryview(bytearray(200_000))
        while len(got) < len(content):
            got += view[: stream.receive_into(view, in_time())]
        thread.join(PATIENCE_S)
        assert got == content
        thread = in_background(lambda: stream.send(content))
        back = bytearray()
        while len(back) < len(content):
            back += client.recv(65536)
        assert back == content
        thread.join(PATIENCE_S)


def test_what_one_record_holds_is_read_in_small_pieces_without_waiting(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        client.sendall(b"0123456789" * 100)
        view, got = memoryview(bytearray(7)), b""
        while len(got) < 1000:
            got += bytes(view[: stream.receive_into(view, in_time())])
        assert got == b"0123456789" * 100


def test_a_wait_ends_at_its_deadline(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, _), pytest.raises(PeerTimeout):
        stream.receive_into(memoryview(bytearray(10)), time.monotonic() + 0.2)


def test_a_record_that_trickles_ends_at_the_deadline(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        wire = b"x" * 400
        if kind != "plain":
            wire = b"\x17\x03\x03\x01\xa0" + wire
        over = threading.Event()

        def trickle() -> None:
            for byte in wire:
                if over.wait(0.03):
                    return
                socket.socket.send(client, bytes([byte]))

        thread = in_background(trickle)
        view, end = memoryview(bytearray(1000)), time.monotonic() + 0.3
        with pytest.raises(PeerTimeout):
            while True:
                stream.receive_into(view, end)
        over.set()
        thread.join(PATIENCE_S)


def test_after_a_deadline_the_connection_still_works(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        view = memoryview(bytearray(10))
        with pytest.raises(PeerTimeout):
            stream.receive_into(view, time.monotonic() + 0.05)
        client.sendall(b"late")
        assert bytes(view[: stream.receive_into(view, in_time())]) == b"late"


class Looks:
    """A socket that counts how often something is read from it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.count = 0

    def recv_into(self, view: memoryview) -> int:
        self.count += 1
        return self._sock.recv_into(view)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def test_a_wait_is_spent_in_the_kernel(kind: str, ca: TestCA, monkeypatch: pytest.MonkeyPatch) -> None:
    with connection(kind, ca) as (stream, _):
        looks = Looks(stream._socket)
        monkeypatch.setattr(stream, "_socket", looks)
        with pytest.raises(PeerTimeout):
            stream.receive_into(memoryview(bytearray(10)), time.monotonic() + 0.25)
        assert looks.count < 5
        monkeypatch.undo()


def test_a_peer_that_reads_nothing_is_given_up(kind: str, ca: TestCA) -> None:
    with connection(kind, ca, send_s=0.4) as (stream, _), pytest.raises(PeerTimeout):
        stream.send(bytes(12 << 20))


def test_a_closed_connection_is_an_abort(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        client.close()
        with pytest.raises(AssociationAborted, match="closed"):
            stream.receive_into(memoryview(bytearray(10)), in_time())


@pytest.mark.parametrize("end", [Stream.kill, Stream.wake])
def test_another_thread_ends_a_wait_at_once(kind: str, ca: TestCA, end: Callable[[Stream], None]) -> None:
    with connection(kind, ca) as (stream, _):
        timer = threading.Timer(0.1, end, [stream])
        timer.start()
        with pytest.raises(AssociationAborted, match="our side"):
            stream.receive_into(memoryview(bytearray(10)), in_time())
        timer.join()


def test_another_thread_ends_a_send_at_once(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, _):
        timer = threading.Timer(0.1, stream.kill)
        timer.start()
        with pytest.raises(AssociationAborted, match="our side"):
            stream.send(bytes(12 << 20))
        timer.join()


def test_after_waking_last_words_still_go_out_and_never_in_clear(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        stream.wake()
        with pytest.raises(AssociationAborted):
            stream.receive_into(memoryview(bytearray(10)), in_time())
        thread = in_background(lambda: stream.farewell(b"last words", PATIENCE_S))
        if kind != "plain":
            assert b"last words" not in socket.socket.recv(client, 1000, socket.MSG_PEEK)
        assert client.recv(100) == b"last words"
        client.close()
        thread.join(PATIENCE_S)


def test_last_words_reach_a_peer_that_still_sends(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, client):
        client.sendall(bytes(200_000))
        thread = in_background(lambda: stream.farewell(b"last words", PATIENCE_S))
        assert client.recv(100) == b"last words"
        client.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_handshake_ends_at_its_deadline_however_it_trickles(ca: TestCA) -> None:
    ours, _ = contexts(ca)
    server, client = tcp_pair()
    over = threading.Event()

    def trickle() -> None:
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500):
            if over.wait(0.05):
                return
            client.send(bytes([byte]))

    thread = in_background(trickle)
    with Stream(server, peer="PEER") as stream, client:
        with pytest.raises(PeerTimeout):
            stream.secure(ours, deadline=time.monotonic() + 0.4, server_side=True)
        over.set()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("words", [b"\x01\0\0\0\0\xcd" + bytes(205), b"GET / HTTP/1.0\r\n\r\n", b""])
def test_a_peer_without_tls_is_told_apart(ca: TestCA, words: bytes) -> None:
    ours, _ = contexts(ca)
    server, client = tcp_pair()
    client.sendall(words)
    client.shutdown(socket.SHUT_WR)
    with Stream(server, peer="PEER") as stream, client, pytest.raises(TlsFailed):
        stream.secure(ours, deadline=in_time(), server_side=True)


def test_a_peer_without_certificate_is_refused(ca: TestCA) -> None:
    ours, _ = contexts(ca)
    server, client = tcp_pair()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE

    def knock() -> None:
        with pytest.raises(OSError), bare.wrap_socket(client) as secured:
            secured.recv(1)

    thread = in_background(knock)
    with Stream(server, peer="PEER") as stream, pytest.raises(TlsFailed, match="no certificate"):
        stream.secure(ours, deadline=in_time(), server_side=True)
    thread.join(PATIENCE_S)


def test_the_names_in_the_peers_certificate_are_known(kind: str, ca: TestCA) -> None:
    with connection(kind, ca) as (stream, _):
        names = stream.certificate_names()
        assert names is None if kind == "plain" else names is not None and "modality" in names
