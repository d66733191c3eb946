"""TLS over a stream, record by record: what is cut, trickled, tampered with, ended, or comes with the handshake."""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.association.upper.records import WIRE_BYTES
from gateway.association.upper.stream import Stream
from gateway.config.settings import ListenTlsTable, TlsTable
from gateway.core.errors import AssociationAborted, ConnectionLost, PeerTimeout, TlsFailed
from gateway.security import tls
from tests.association.conftest import tcp_pair
from tests.support.certificates import TestCA
from tests.support.waiting import PATIENCE_S, in_time, wait_until

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


class Peer:
    """A TLS client of which every byte is in hand: what it seals goes out when and how the test says."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake_hands(self, more: bytes = b"") -> None:
        """Do the handshake; the last flight goes out together with `more`."""
        while True:
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.incoming.write(self.sock.recv(65536))
            else:
                self.sock.sendall(self.outgoing.read() + more)
                return

    def seal(self, data: bytes) -> bytes:
        self.session.write(data)
        return self.outgoing.read()

    def receive(self) -> bytes:
        """Return the next bytes that come, b"" for close_notify. Raises ssl.SSLEOFError where there is none."""
        while True:
            with suppress(ssl.SSLWantReadError):
                return self.session.read(65536)
            if wire := self.sock.recv(65536):
                self.incoming.write(wire)
            else:
                self.incoming.write_eof()


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def acceptor(ca: TestCA) -> ssl.SSLContext:
    return tls.acceptor_context(ListenTlsTable(**ca.issue("gateway")))


def requestor(ca: TestCA, version: str) -> ssl.SSLContext:
    context = tls.requestor_context(TlsTable(**ca.issue("modality")))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


@contextmanager
def connection(ca: TestCA, version: str, *, send_s: float = PATIENCE_S) -> Iterator[tuple[Stream, Peer]]:
    server, client = tcp_pair()
    peer = Peer(client, requestor(ca, version))
    with Stream(server, peer="PEER", send_s=send_s) as stream, client:
        thread = in_background(peer.shake_hands)
        stream.secure(acceptor(ca), deadline=in_time(), server_side=True)
        thread.join(PATIENCE_S)
        yield stream, peer


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def receive(stream: Stream, count: int, *, room: int = 1 << 20, within_s: float = PATIENCE_S) -> bytes:
    got, view = b"", memoryview(bytearray(room))
    deadline = time.monotonic() + within_s
    while len(got) < count:
        got += view[: stream.receive_into(view, deadline)]
    return got


def test_many_records_come_with_one_call(ca: TestCA, version: str) -> None:
    content = random.Random(1).randbytes(60_000)
    with connection(ca, version) as (stream, peer):
        wire = b"".join(peer.seal(content[at : at + 1000]) for at in range(0, len(content), 1000))
        assert len(wire) < WIRE_BYTES
        peer.sock.sendall(wire)
        wait_until(lambda: len(stream._socket.recv(len(wire), socket.MSG_PEEK)) == len(wire), "everything there")
        view = memoryview(bytearray(len(content)))
        assert stream.receive_into(view, in_time()) == len(content)
        assert view == content


@pytest.mark.parametrize("room", [7, 16_384, 100_001])
def test_records_cut_anywhere_arrive_whole(ca: TestCA, version: str, room: int) -> None:
    dice = random.Random(room)
    content = dice.randbytes(70_000 if room == 7 else 2_000_000)
    with connection(ca, version) as (stream, peer):
        wire = peer.seal(content)

        def trickle() -> None:
            at = 0
            while at < len(wire):
                peer.sock.sendall(wire[at : (at := at + dice.randrange(1, 40_000))])

        thread = in_background(trickle)
        assert receive(stream, len(content), room=room) == content
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("more", [1, 4, 1.5])
def test_what_comes_with_the_end_of_the_handshake_is_read(ca: TestCA, more: float) -> None:
    """In TLS 1.3 a client may send with its last flight; here also the first half of a record."""
    server, client = tcp_pair()
    peer = Peer(client, requestor(ca, "TLS 1.3"))
    rest: list[bytes] = []

    def knock() -> None:
        real, peer.sock = peer.sock, Recorder(peer.sock)  # type: ignore[assignment]
        peer.shake_hands()
        last, peer.sock = peer.sock.held, real  # type: ignore[attr-defined]
        wire = b"".join(peer.seal(bytes([number]) * 100) for number in range(4))
        cut = int(len(wire) * more / 4)
        rest.append(wire[cut:])
        real.sendall(last + wire[:cut])

    with Stream(server, peer="PEER") as stream, client:
        thread = in_background(knock)
        stream.secure(acceptor(ca), deadline=in_time(), server_side=True)
        thread.join(PATIENCE_S)
        whole = int(more) * 100
        assert receive(stream, whole) == b"".join(bytes([number]) * 100 for number in range(4))[:whole]
        client.sendall(rest[0])
        assert len(receive(stream, 400 - whole)) == 400 - whole


class Recorder:
    """A socket that holds back what is sent after the ClientHello."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sent = False
        self.held = b""

    def sendall(self, data: bytes) -> None:
        if self._sent:
            self.held += data
        else:
            self._sock.sendall(data)
            self._sent = True

    def recv(self, count: int) -> bytes:
        return self._sock.recv(count)


def test_a_real_record_that_trickles_ends_at_the_deadline_and_is_not_lost(ca: TestCA, version: str) -> None:
    with connection(ca, version) as (stream, peer):
        wire = peer.seal(b"x" * 400)
        over = threading.Event()
        sent = 0

        def trickle() -> None:
            nonlocal sent
            while not over.wait(0.03):
                sent += peer.sock.send(wire[sent : sent + 1])

        thread = in_background(trickle)
        with pytest.raises(PeerTimeout):
            stream.receive_into(memoryview(bytearray(1000)), time.monotonic() + 0.3)
        over.set()
        thread.join(PATIENCE_S)
        peer.sock.sendall(wire[sent:])
        assert receive(stream, 400) == b"x" * 400


def test_half_a_record_and_the_end_is_a_lost_connection(ca: TestCA, version: str) -> None:
    with connection(ca, version) as (stream, peer):
        peer.sock.sendall(peer.seal(b"first") + peer.seal(b"second")[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert receive(stream, 5) == b"first"
        with pytest.raises(ConnectionLost, match="closed"):
            stream.receive_into(memoryview(bytearray(10)), in_time())


def test_close_notify_ends_a_wait_though_the_connection_stays_open(ca: TestCA, version: str) -> None:
    with connection(ca, version) as (stream, peer):
        last = peer.seal(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            peer.session.unwrap()
        peer.sock.sendall(last + peer.outgoing.read())
        assert receive(stream, 4) == b"last"
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="closed"):
                stream.receive_into(memoryview(bytearray(10)), in_time())


def test_a_tampered_record_ends_the_session_behind_what_was_whole(ca: TestCA, version: str) -> None:
    with connection(ca, version) as (stream, peer):
        whole, bad = peer.seal(b"whole"), bytearray(peer.seal(b"tampered with"))
        bad[-1] ^= 1
        peer.sock.sendall(whole + bad + peer.seal(b"after"))
        assert receive(stream, 5) == b"whole"
        for _ in range(2):
            with pytest.raises(AssociationAborted, match=r"TLS failed \(DECRYPTION_FAILED_OR_BAD_RECORD_MAC\)"):
                stream.receive_into(memoryview(bytearray(100)), in_time())
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            peer.receive()


def test_bytes_that_are_no_record_end_the_session(ca: TestCA, version: str) -> None:
    with connection(ca, version) as (stream, peer):
        peer.sock.sendall(b"\x04\x00" + bytes(100))
        with pytest.raises(AssociationAborted, match="TLS failed"):
            stream.receive_into(memoryview(bytearray(100)), in_time())


@pytest.mark.parametrize("end", [Stream.close, lambda stream: stream.farewell(b"bye", PATIENCE_S)], ids=["close", "farewell"])
def test_the_peer_is_told_that_nothing_was_cut_off(ca: TestCA, version: str, end: Callable[[Stream], None]) -> None:
    with connection(ca, version) as (stream, peer):
        thread = in_background(lambda: end(stream))
        got = peer.receive()
        assert got == b"" or (got == b"bye" and peer.receive() == b"")
        peer.sock.close()
        thread.join(PATIENCE_S)


def test_after_a_send_that_was_cut_off_the_peer_is_not_told_otherwise(ca: TestCA, version: str) -> None:
    with connection(ca, version, send_s=0.3) as (stream, peer):
        with pytest.raises(PeerTimeout):
            stream.send(bytes(12 << 20))
        stream.close()
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            while peer.receive():
                continue


def test_a_peer_that_is_refused_learns_why(ca: TestCA, version: str) -> None:
    server, client = tcp_pair()
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(ca.ca)
    bare.minimum_version = bare.maximum_version = VERSIONS[version]
    peer = Peer(client, bare)
    told: list[str | None] = []

    def knock() -> None:
        try:
            peer.shake_hands()
            peer.receive()
        except ssl.SSLError as error:
            told.append(error.reason)

    with Stream(server, peer="PEER") as stream, client:
        thread = in_background(knock)
        with pytest.raises(TlsFailed, match="no certificate"):
            stream.secure(acceptor(ca), deadline=in_time(), server_side=True)
        thread.join(PATIENCE_S)
    assert told == [{"TLS 1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE", "TLS 1.3": "TLSV13_ALERT_CERTIFICATE_REQUIRED"}[version]]


def test_tickets_behind_the_handshake_are_taken_with_the_first_bytes(ca: TestCA) -> None:
    server, client = tcp_pair()
    theirs = acceptor(ca)
    theirs.num_tickets = 5

    def answer() -> None:
        with theirs.wrap_socket(server, server_side=True) as secured:
            secured.sendall(b"hello")
            assert secured.recv(10) == b"bye"

    with Stream(client, peer="PEER") as stream:
        thread = in_background(answer)
        stream.secure(requestor(ca, "TLS 1.3"), deadline=in_time(), server_side=False, server_name="localhost")
        assert receive(stream, 5) == b"hello"
        assert stream.session is not None
        stream.send(b"bye")
        thread.join(PATIENCE_S)


@contextmanager
def s_client(ca: TestCA, *options: str) -> Iterator[tuple[Stream, subprocess.Popen[bytes]]]:
    """A stream to ``openssl s_client``, which heeds its letters at the start of a line."""
    files = ca.issue("modality")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-CAfile", str(files["ca"])]
        command += ["-cert", str(files["certificate"]), "-key", str(files["key"]), *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                with Stream(listener.accept()[0], peer="PEER") as stream:
                    stream.secure(acceptor(ca), deadline=in_time(), server_side=True)
                    yield stream, process
            finally:
                process.kill()


def say(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


@pytest.mark.peers
def test_new_keys_in_both_directions_change_nothing(ca: TestCA) -> None:
    with s_client(ca, "-tls1_3") as (stream, process):
        assert process.stdout is not None
        for number in range(3):
            say(process, b"K")
            line = b"line %d" % number
            # Before the letter was heeded, it and the line would be read as one.
            wait_until(lambda: b"KEYUPDATE" in process.stdout.readline(), "a KeyUpdate")
            say(process, line)
            assert receive(stream, len(line) + 1) == line + b"\n"
            stream.send(line + b" back\n")
            wait_until(lambda line=line: process.stdout.readline() == line + b" back\n", "the answer")


@pytest.mark.peers
def test_renegotiation_is_refused(ca: TestCA) -> None:
    with s_client(ca, "-tls1_2") as (stream, process):
        say(process, b"first")
        assert receive(stream, 6) == b"first\n"
        say(process, b"R")
        with pytest.raises(AssociationAborted):
            stream.receive_into(memoryview(bytearray(100)), in_time())
