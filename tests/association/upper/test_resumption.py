"""TLS sessions that go on in the next connection: with whom, with whose certificate, and when not."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.association.scu.requestor import RemoteAE, associate
from gateway.association.upper import stream
from gateway.association.upper.contexts import VERIFICATION_CONTEXTS
from gateway.association.upper.resumption import MOST_PEERS, MOST_SESSIONS, Sessions, TlsPeer
from gateway.association.upper.stream import Stream
from gateway.config.settings import ListenTlsTable, TlsTable
from gateway.core.errors import AssociationError, TlsFailed
from gateway.security import tls
from tests.association.conftest import tcp_pair
from tests.support.accepting import accepting
from tests.support.certificates import TestCA
from tests.support.dcmtk import storescp
from tests.support.deadlines import PATIENT
from tests.support.orthanc import orthanc
from tests.support.ports import HOST
from tests.support.raw import VERIFICATION, associate_rq
from tests.support.waiting import PATIENCE_S, in_time

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


def acceptor(ca: TestCA) -> ssl.SSLContext:
    return tls.acceptor_context(ListenTlsTable(**ca.issue("gateway")))


def requestor(ca: TestCA, name: str = "modality") -> ssl.SSLContext:
    return tls.requestor_context(TlsTable(**ca.issue(name)))


def echo(port: int, context: ssl.SSLContext, *, called: str = "GATEWAY", host: str = HOST) -> None:
    with associate(RemoteAE(called, host, port, tls=context), "MODALITY", VERIFICATION_CONTEXTS, deadlines=PATIENT) as association:
        association.echo()


def resumed(context: ssl.SSLContext) -> int:
    """Return how many sessions of earlier connections went on."""
    return context.session_stats()["hits"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reconnect_resumes_and_admission_sees_the_same_certificate(ca: TestCA, version: str) -> None:
    ours, theirs = acceptor(ca), requestor(ca)
    theirs.maximum_version = VERSIONS[version]
    with accepting(tls=ours) as gateway:
        for _ in range(4):
            echo(gateway.port, theirs)
        names = [caller[2] for caller in gateway.admission.callers]
    assert resumed(ours) == resumed(theirs) == 3
    assert names[0] is not None
    assert "modality" in names[0]
    assert names == names[:1] * 4


def test_associations_at_once_resume_a_session_each(ca: TestCA) -> None:
    ours, theirs = acceptor(ca), requestor(ca)
    with accepting(tls=ours) as gateway:
        remote = RemoteAE("GATEWAY", HOST, gateway.port, tls=theirs)
        for _ in range(2):
            open_ones = [associate(remote, "MODALITY", VERIFICATION_CONTEXTS, deadlines=PATIENT) for _ in range(4)]
            for association in open_ones:
                association.release()
    assert resumed(ours) >= 4


def test_no_session_goes_over_to_another_certificate_of_ours(ca: TestCA) -> None:
    ours = acceptor(ca)
    with accepting(tls=ours) as gateway:
        echo(gateway.port, requestor(ca))
        echo(gateway.port, requestor(ca, "workstation"))
        assert [("workstation" in (caller[2] or ())) for caller in gateway.admission.callers] == [False, True]
    assert resumed(ours) == 0


def test_no_session_goes_over_to_another_name_of_the_peer(ca: TestCA) -> None:
    ours, theirs = acceptor(ca), requestor(ca)
    with accepting(tls=ours) as gateway:
        echo(gateway.port, theirs)
        echo(gateway.port, theirs, host="localhost")
        remote = RemoteAE("GATEWAY", HOST, gateway.port, tls=theirs, server_name="elsewhere.example")
        with pytest.raises(TlsFailed, match="Hostname mismatch"):
            associate(remote, "MODALITY", VERIFICATION_CONTEXTS, deadlines=PATIENT)
    assert resumed(ours) == 0


def test_a_peer_that_has_forgotten_gets_a_full_handshake(ca: TestCA) -> None:
    theirs = requestor(ca)
    before, after = acceptor(ca), acceptor(ca)
    with accepting(tls=before) as first, accepting(tls=after) as second, switchboard([first.port, second.port]) as port:
        echo(port, theirs)
        echo(port, theirs)
    assert resumed(before) == resumed(after) == 0
    assert len(second.admission.callers) == 1


def test_a_refused_tls_session_is_followed_by_a_new_one_in_the_same_call(ca: TestCA) -> None:
    ours, theirs = acceptor(ca), requestor(ca)
    with accepting(tls=ours) as gateway, switchboard([gateway.port, None, gateway.port, gateway.port]) as port:
        echo(port, theirs)
        echo(port, theirs)
        assert resumed(ours) == 0
        echo(port, theirs)
    assert resumed(ours) == 1


def test_a_peer_that_takes_a_session_and_hangs_up_is_offered_no_other(ca: TestCA) -> None:
    ours, theirs = acceptor(ca), requestor(ca)
    with accepting(tls=ours) as gateway:
        remote = RemoteAE("GATEWAY", HOST, gateway.port, tls=theirs)
        open_ones = [associate(remote, "MODALITY", VERIFICATION_CONTEXTS, deadlines=PATIENT) for _ in range(3)]
        for association in open_ones:
            association.release()
        with pytest.raises(AssociationError):
            echo(gateway.port, theirs, called="OTHER")
        before = resumed(ours)
        assert before
        echo(gateway.port, theirs)
        assert resumed(ours) == before


@contextmanager
def switchboard(ports: list[int | None]) -> Iterator[int]:
    """Carry the connections to a port to `ports`, in turn; for None it is closed as soon as something comes."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def connect(near: socket.socket, port: int) -> None:
        with near, socket.create_connection((HOST, port)) as far:
            back = threading.Thread(target=carry, args=(far, near), daemon=True)
            back.start()
            carry(near, far)
            back.join(PATIENCE_S)

    def work() -> None:
        for port in ports:
            near, _ = listener.accept()
            if port is None:
                near.recv(1)
                near.close()
            else:
                connect(near, port)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_session_does_not_outlive_the_certificate_that_it_stands_for(ca: TestCA, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = acceptor(ca), tls.requestor_context(TlsTable(**ca.issue("short-lived", days=30)))

    def connect(session: ssl.SSLSession | None) -> Stream:
        server, client = tcp_pair()
        accepted, stream = Stream(server, peer="CLIENT"), Stream(client, peer="SERVER")
        failed: list[TlsFailed] = []

        def accept() -> None:
            with accepted:
                try:
                    accepted.secure(ours, deadline=in_time(), server_side=True)
                    accepted.send(b"x")
                except TlsFailed as error:
                    failed.append(error)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        stream.secure(theirs, deadline=in_time(), server_side=False, server_name="localhost", session=session)
        try:
            stream.receive_into(memoryview(bytearray(1)), in_time())
        finally:
            thread.join(PATIENCE_S)
            stream.close()
            if failed:
                raise failed[0]
        return stream

    first = connect(None)
    again = connect(first.session)
    assert again.resumed
    later = timedelta(days=31)
    monkeypatch.setattr(stream, "certificate_expired", lambda der, now: tls.certificate_expired(der, now + later))
    with pytest.raises(TlsFailed, match="expired"):
        connect(again.session)


def connected(ca: TestCA, context: ssl.SSLContext) -> Stream:
    """Return a closed connection by `context`, with a session that can be resumed."""
    server, client = tcp_pair()

    def accept() -> None:
        with Stream(server, peer="CLIENT") as accepted:
            accepted.secure(acceptor(ca), deadline=in_time(), server_side=True)
            accepted.send(b"x")
            with suppress(AssociationError):
                accepted.receive_into(memoryview(bytearray(1)), in_time())

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with Stream(client, peer="SERVER") as stream:
        stream.secure(context, deadline=in_time(), server_side=False, server_name="localhost")
        stream.receive_into(memoryview(bytearray(1)), in_time())
    thread.join(PATIENCE_S)
    return stream


def test_what_is_kept_is_used_once_and_bounded(ca: TestCA) -> None:
    sessions, context = Sessions(), requestor(ca)
    stream = connected(ca, context)
    peers = [TlsPeer(context, HOST, port, "localhost") for port in range(MOST_PEERS + 1)]
    for peer in peers:
        sessions.keep(peer, stream)
    assert sessions.take(peers[0]) is None
    assert sessions.take(peers[1]) is not None
    assert sessions.take(peers[1]) is None
    for _ in range(MOST_SESSIONS + 1):
        sessions.keep(peers[2], stream)
    taken = [sessions.take(peers[2]) for _ in range(MOST_SESSIONS + 1)]
    assert taken[-2] is not None
    assert taken[-1] is None
    sessions.forget(peers[3])
    assert sessions.take(peers[3]) is None


@pytest.mark.peers("storescp")
def test_storescp_resumes(tmp_path: Path, ca: TestCA) -> None:
    theirs = requestor(ca, "gateway")
    with storescp(tmp_path / "received", tls=ca.issue("storescp")) as peer:
        for _ in range(3):
            echo(peer.port, theirs, called="ANY-SCP")
    assert resumed(theirs) == 2


@pytest.mark.peers("Orthanc")
def test_orthanc_resumes(tmp_path: Path, ca: TestCA) -> None:
    theirs = requestor(ca, "gateway")
    with orthanc(tmp_path / "orthanc", tls=ca.issue("orthanc")) as peer:
        for _ in range(3):
            echo(peer.port, theirs, called="ORTHANC")
    assert resumed(theirs) == 2


@pytest.mark.peers
def test_openssl_resumes_with_the_ticket_that_it_kept(tmp_path: Path, ca: TestCA) -> None:
    files, kept = ca.issue("modality"), tmp_path / "session.pem"
    words = associate_rq("MODALITY", "GATEWAY", [(1, VERIFICATION, ["1.2.840.10008.1.2"])])
    with accepting(tls=acceptor(ca)) as gateway:
        command = ["openssl", "s_client", "-connect", f"{HOST}:{gateway.port}", "-CAfile", files["ca"], "-nocommands"]
        command += ["-cert", files["certificate"], "-key", files["key"], "-verify_return_error"]
        for option, expected in (("-sess_out", b"New, TLSv1.3"), ("-sess_in", b"Reused, TLSv1.3")):
            with subprocess.Popen([*command, option, kept], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(words)
                process.stdin.flush()
                output = b""
                while b"\x02\x00\x00\x00\x00" not in output:
                    output += process.stdout.read1()
                process.kill()
            assert expected in output
        assert ["modality" in (caller[2] or ()) for caller in gateway.admission.callers] == [True, True]
