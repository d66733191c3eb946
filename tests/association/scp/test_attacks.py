"""Attacks on the acceptor, a test for each weakness that servers of this kind are known for. The service goes on in every one."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.association.scp.acceptor import Limits
from gateway.config.settings import ListenTlsTable, TlsTable
from gateway.security import tls
from tests.support.accepting import Accepting, accepting
from tests.support.certificates import TestCA
from tests.support.raw import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CT,
    EXPLICIT_LE,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Connection,
    Ended,
    RawRequestor,
    associate_rq,
    command_set,
    item,
    pdu,
    pdv,
    user_information,
)
from tests.support.waiting import PATIENCE_S, wait_until

MIB = 1 << 20
PATIENT = Limits(handshake_timeout_s=PATIENCE_S, pdu_timeout_s=PATIENCE_S, send_timeout_s=PATIENCE_S, max_handshakes=16)
NO_HANDSHAKE = replace(PATIENT, handshake_timeout_s=0.6)
NO_PDU = replace(PATIENT, pdu_timeout_s=0.6)
NOT_READ = replace(PATIENT, send_timeout_s=0.6)
"""Each with one deadline that runs out; no other does, however busy the machine is."""

DEFLATED = "1.2.840.10008.1.2.1.99"
REQUEST = associate_rq("RAW", "GATEWAY", [(1, CT, (EXPLICIT_LE,))])


@pytest.fixture
def gateway() -> Iterator[Accepting]:
    with accepting(PATIENT) as running:
        yield running


def serves(gateway: Accepting, *, tls: ssl.SSLContext | None = None) -> bool:
    """Tell whether a well-behaved peer is served while others are still waited for, see `PATIENT`."""
    with RawRequestor(gateway.port, tls=tls, timeout_s=PATIENCE_S / 2) as peer:
        return peer.store("1.2.3", b"data") == 0


def ends(sock: socket.socket, within_s: float = PATIENCE_S / 2) -> bool:
    """Tell whether the peer ends the connection in time, whatever it says before."""
    sock.settimeout(within_s)
    try:
        while sock.recv(65536):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def connect(gateway: Accepting, stack: ExitStack) -> socket.socket:
    return stack.enter_context(gateway.connect())


@pytest.fixture
def contexts(ca: TestCA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    ours, theirs = ca.issue("gateway"), ca.issue("modality")
    return tls.acceptor_context(ListenTlsTable(**ours)), tls.requestor_context(TlsTable(**theirs))


# Idle clients


def test_idle_tcp_clients_of_a_tls_listener_block_nobody(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = contexts
    with accepting(PATIENT, tls=ours) as gateway, ExitStack() as stack:
        idle = [connect(gateway, stack) for _ in range(15)]
        assert serves(gateway, tls=theirs)
        assert len(idle) < PATIENT.max_handshakes


def test_tls_clients_that_never_associate_block_nobody(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = contexts
    with accepting(PATIENT, tls=ours) as gateway, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(theirs.wrap_socket(connect(gateway, stack), server_hostname="localhost"))
        assert serves(gateway, tls=theirs)


@pytest.mark.parametrize("secure", ["no", "before the handshake", "behind it"])
def test_clients_that_never_associate_are_cut_off(contexts: tuple[ssl.SSLContext, ssl.SSLContext], secure: str) -> None:
    ours, theirs = contexts
    with accepting(NO_HANDSHAKE, tls=None if secure == "no" else ours) as gateway, ExitStack() as stack:
        idle = [connect(gateway, stack) for _ in range(12)]
        if secure == "behind it":
            for position, sock in enumerate(idle):
                # A handshake that a busy machine cannot do in time is cut off, too.
                with contextlib.suppress(OSError):
                    idle[position] = stack.enter_context(theirs.wrap_socket(sock, server_hostname="localhost"))
        assert all(ends(sock) for sock in idle)


def test_a_crowd_of_idle_clients_makes_room_for_one_that_speaks() -> None:
    with accepting(PATIENT) as gateway, ExitStack() as stack:
        before = threading.active_count()
        idle = [connect(gateway, stack) for _ in range(120)]
        assert serves(gateway)
        assert threading.active_count() - before < 40
        assert ends(idle[0])


# Half headers and trickled bytes


@pytest.mark.parametrize("limits", [PATIENT, NO_HANDSHAKE], ids=["hold nobody", "are cut off"])
def test_half_headers(limits: Limits) -> None:
    with accepting(limits) as gateway, ExitStack() as stack:
        half = [connect(gateway, stack) for _ in range(12)]
        for sock in half:
            sock.sendall(REQUEST[:3])
        assert serves(gateway) if limits is PATIENT else all(ends(sock) for sock in half)


def trickle(sock: socket.socket, data: bytes, over: threading.Event) -> threading.Thread:
    def send() -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                sock.send(bytes([byte]))
                if over.wait(0.05):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_request_that_trickles_ends_at_the_deadline() -> None:
    over = threading.Event()
    with accepting(NO_HANDSHAKE) as gateway, gateway.connect() as sock:
        thread = trickle(sock, REQUEST, over)
        assert ends(sock)
        over.set()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("where", ["in the header", "in a command", "in a data set"])
def test_a_message_that_trickles_ends_at_the_deadline(where: str) -> None:
    over = threading.Event()
    with accepting(NO_PDU) as gateway, closing(RawRequestor(gateway.port)) as peer:
        request = peer.request("1.2.9")
        head = {"in the header": b"", "in a command": request[:20], "in a data set": request}[where]
        peer.send(head)
        rest = pdu(P_DATA, pdv(1, bytes(1000), command=False, last=False)) if where == "in a data set" else request[len(head) :]
        thread = trickle(peer.sock, rest, over)
        assert ends(peer.sock)
        over.set()
        thread.join(PATIENCE_S)
        wait_until(lambda: gateway.acceptor.association_count == 0, "the end of the association")
    assert [stored.state for stored in gateway.storage.instances if stored.request.sop_instance_uid == "1.2.9"] in (
        [],
        ["discarded"],
    )


# Length bombs


LENGTH_BOMBS = {
    "A-ASSOCIATE-RQ of 600 MiB": b"\x01\0" + struct.pack(">I", 600 * MIB),
    "A-ASSOCIATE-RQ of 4 GiB": b"\x01\0\xff\xff\xff\xff",
    "A-ASSOCIATE-RQ with an item beyond its end": pdu(0x01, REQUEST[6:74] + b"\x20\0\xff\xff" + bytes(100)),
    "A-ASSOCIATE-RQ cut off": pdu(0x01, REQUEST[6:40]),
    "A-ASSOCIATE-RQ without length": pdu(0x01, b""),
    "P-DATA before anything": pdu(P_DATA, bytes(100)),
    "A-ABORT of 1 GiB": b"\x07\0\x40\0\0\0",
    "TLS where there is none": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
    "HTTP": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
}


@pytest.mark.parametrize("what", LENGTH_BOMBS)
def test_a_first_pdu_that_is_none_ends_at_once_and_takes_no_memory(gateway: Accepting, what: str) -> None:
    before = resident_bytes()
    with gateway.connect() as sock:
        sock.sendall(LENGTH_BOMBS[what])
        kind, body = Connection(sock).receive()
        assert (kind, body[2]) == (ABORT, 2)
        with contextlib.suppress(OSError):
            for _ in range(64):
                sock.sendall(bytes(65536))
    assert resident_bytes() - before < 16 * MIB
    assert serves(gateway)


ESTABLISHED_BOMBS = {
    "P-DATA longer than advertised": b"\x04\0" + struct.pack(">I", 131073),
    "P-DATA of 4 GiB": b"\x04\0\xff\xff\xff\xff",
    "a PDV of 4 GiB": pdu(P_DATA, struct.pack(">IBB", 0xFFFFFFFF, 1, 3) + bytes(20)),
    "a PDV of no length": pdu(P_DATA, struct.pack(">IBB", 0, 1, 3)),
    "an empty PDU": pdu(P_DATA, b""),
    "a PDU of an unknown type": b"\x42\0\0\0\0\x04abcd",
    "another A-ASSOCIATE-RQ": REQUEST,
    "an A-ASSOCIATE-AC": pdu(ASSOCIATE_AC, REQUEST[6:]),
    "an A-RELEASE-RP": pdu(RELEASE_RP, bytes(4)),
    "an A-RELEASE-RQ of 1 GiB": b"\x05\0\x40\0\0\0",
    "a data set without command": pdu(P_DATA, pdv(1, b"data", command=False, last=True)),
    "a command of noise": pdu(P_DATA, pdv(1, random.Random(1).randbytes(500), command=True, last=True)),
    "a command with an element of 4 GiB": pdu(P_DATA, pdv(1, b"\0\0\0\x01\xff\xff\xff\xff", command=True, last=True)),
    "empty fragments without end": pdu(P_DATA, pdv(1, b"", command=True, last=False) * 1000),
}


@pytest.mark.parametrize("what", ESTABLISHED_BOMBS)
def test_what_breaks_the_protocol_ends_in_an_abort_by_the_provider(gateway: Accepting, what: str) -> None:
    with closing(RawRequestor(gateway.port)) as peer:
        peer.send(ESTABLISHED_BOMBS[what])
        kind, body = peer.receive()
        assert (kind, body[2]) == (ABORT, 2)
    assert serves(gateway)


def test_a_command_without_end_takes_no_memory(gateway: Accepting) -> None:
    before = resident_bytes()
    with closing(RawRequestor(gateway.port)) as peer, contextlib.suppress(Ended):
        for _ in range(1000):
            peer.send(pdu(P_DATA, pdv(1, bytes(100_000), command=True, last=False)))
    assert resident_bytes() - before < 16 * MIB
    assert serves(gateway)


def test_a_data_set_without_end_takes_no_memory(gateway: Accepting) -> None:
    gateway.storage.keep = False
    with closing(RawRequestor(gateway.port)) as peer:
        peer.send(peer.request("1.2.3"))
        part = pdu(P_DATA, pdv(1, bytes(131_000), command=False, last=False))
        for _ in range(100):
            peer.send(part)
        before = resident_bytes()
        for _ in range(3000):
            peer.send(part)
        assert resident_bytes() - before < 16 * MIB
    assert gateway.storage.discarded.wait(PATIENCE_S)


def test_a_commitment_report_without_end_is_cut_off() -> None:
    contexts = [(1, "1.2.840.10008.1.20.1", (EXPLICIT_LE,))]
    event = command_set(command_field=0x0100, message_id=1, data_set_type=1)
    with accepting() as gateway, closing(RawRequestor(gateway.port, contexts=contexts)) as peer:
        peer.send(pdu(P_DATA, pdv(1, event, command=True, last=True)))
        part = pdu(P_DATA, pdv(1, bytes(131_000), command=False, last=False))
        with contextlib.suppress(Ended):
            for _ in range(1000):
                peer.send(part)
        assert ends(peer.sock)
        assert not gateway.commitment.reports


def test_sixty_four_associations_at_work_stay_within_their_buffers() -> None:
    before = resident_bytes()
    with accepting() as gateway, ExitStack() as stack:
        gateway.storage.keep = False
        peers = [stack.enter_context(closing(RawRequestor(gateway.port))) for _ in range(64)]
        assert resident_bytes() - before < 24 * MIB
        for peer in peers:
            peer.send(peer.request("1.2.3"))
            for _ in range(16):
                peer.send(pdu(P_DATA, pdv(1, bytes(131_000), command=False, last=False)))
        wait_until(lambda: all(stored.writes for stored in gateway.storage.instances), "data from every peer")
        assert resident_bytes() - before < 110 * MIB


# Too many


def test_the_sixty_fifth_association_is_rejected_for_now(gateway: Accepting) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(closing(RawRequestor(gateway.port))) for _ in range(64)]
        assert all(peer.accepted for peer in peers)
        with closing(RawRequestor(gateway.port)) as late:
            assert late.reply == (ASSOCIATE_RJ, bytes([0, 2, 3, 2]))
        assert gateway.acceptor.association_count == 64
        assert peers[17].store("1.2.3", b"data") == 0
        peers[0].release()
        wait_until(lambda: gateway.acceptor.association_count == 63, "the released association's end")
        assert serves(gateway)


@pytest.mark.timeout(60)
def test_descriptors_above_1024_are_as_good_as_others() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this process may not have 4096 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    low = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with accepting() as gateway, closing(RawRequestor(gateway.port)) as peer:
            assert peer.sock.fileno() > 1024
            with pytest.raises(ValueError, match="out of range"):
                select.select([peer.sock], [], [], 0)
            assert peer.store("1.2.3", bytes(500_000)) == 0
    finally:
        for fd in low:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors_is_survived() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with accepting() as gateway, gateway.connect() as waiting:
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
        try:
            with ExitStack() as stack, contextlib.suppress(OSError):
                for _ in range(10):
                    connect(gateway, stack)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.sendall(REQUEST)
        assert Connection(waiting).receive()[0] == ASSOCIATE_AC
        assert serves(gateway)


# Peers that stop


def test_a_peer_that_stops_reading_is_given_up() -> None:
    echo = command_set(affected_sop_class=VERIFICATION, command_field=0x30, message_id=1, data_set_type=0x0101)
    asked = pdu(P_DATA, pdv(1, echo, command=True, last=True)) * 500
    with accepting(NOT_READ) as gateway:
        with closing(RawRequestor(gateway.port, contexts=[(1, VERIFICATION, (EXPLICIT_LE,))])) as peer, pytest.raises(Ended):
            for _ in range(1000):
                peer.send(asked)
        wait_until(lambda: gateway.acceptor.association_count == 0, "the end of the association")
        assert serves(gateway)


def test_a_peer_that_stops_in_the_middle_of_an_instance_is_given_up() -> None:
    with accepting(NO_PDU) as gateway, closing(RawRequestor(gateway.port)) as peer:
        peer.send(peer.request("1.2.3") + pdu(P_DATA, pdv(1, bytes(1000), command=False, last=False)))
        assert ends(peer.sock)
        assert gateway.storage.discarded.wait(PATIENCE_S)
    assert not gateway.storage.committed


# Names


HOSTILE_TITLES = {"newline": b"A\nB", "NUL": b"A\0B", "eight bits": b"\xff\xfe\xfd\xfc", "spaces": b" " * 16, "escape": b"\x1b[31m"}


@pytest.mark.parametrize("title", HOSTILE_TITLES.values(), ids=HOSTILE_TITLES)
def test_a_calling_title_that_is_none_is_not_recognized(gateway: Accepting, title: bytes) -> None:
    with gateway.connect() as sock:
        sock.sendall(REQUEST[:26] + title.ljust(16) + REQUEST[42:])
        assert Connection(sock).receive() == (ASSOCIATE_RJ, bytes([0, 1, 1, 3]))
    assert serves(gateway)


@pytest.mark.parametrize("title", ["../../etc/passwd", "%s%n", "'; DROP TABLE", "${jndi:ldap://x}", "."])
def test_an_odd_calling_title_is_a_title(gateway: Accepting, title: str) -> None:
    with RawRequestor(gateway.port, calling=title) as peer:
        assert peer.store("1.2.3", b"data") == 0
    assert gateway.storage.committed[0].association.calling_ae == title


HOSTILE_UIDS = {
    "newline": "1.2.3\n4",
    "NUL": "1.2.3\x004",
    "C1": "1.2.3\x9b4",
    "wildcard": "1.2.*",
    "wildcard for one": "1.2.?",
    "two": "1.2\\1.3",
    "64 KiB": "1" * 15_000,
    "nothing": "",
    "spaces": "  ",
}

ODD_UIDS = {
    "path": "../../../../tmp/evil",
    "65 characters": "1." * 32 + "1",
    "250 characters": "1" * 250,
    "letters": "abc",
    "a space within": "1.2 3",
    "quotes": "1.2'\"<&>;--",
    "percent": "%s%n%00",
}
"""UIDs that break PS3.5 §9.1 and are carried all the same."""


@pytest.mark.parametrize("uid", HOSTILE_UIDS.values(), ids=HOSTILE_UIDS)
def test_an_invalid_instance_uid_is_refused_and_the_association_goes_on(gateway: Accepting, uid: str) -> None:
    with RawRequestor(gateway.port) as peer:
        assert peer.store(uid, bytes(300_000)) == 0x0117
        assert peer.store("1.2.3", b"data") == 0
    assert [stored.request.sop_instance_uid for stored in gateway.storage.instances] == ["1.2.3"]


@pytest.mark.parametrize("uid", HOSTILE_UIDS.values(), ids=HOSTILE_UIDS)
def test_a_class_uid_that_is_none_is_refused_and_the_association_goes_on(gateway: Accepting, uid: str) -> None:
    with RawRequestor(gateway.port) as peer:
        assert peer.store("1.2.3", b"data", sop_class=uid) == 0x0122
        assert peer.store("1.2.3", b"data") == 0


@pytest.mark.parametrize("uid", [*ODD_UIDS.values(), "1.2.é"], ids=[*ODD_UIDS, "eight bits"])
def test_an_instance_uid_that_is_odd_is_carried_as_it_is(gateway: Accepting, uid: str) -> None:
    with RawRequestor(gateway.port) as peer:
        assert peer.store(uid, b"data") == 0
    assert [stored.request.sop_instance_uid for stored in gateway.storage.instances] == [uid.encode().decode("latin-1")]


@pytest.mark.parametrize("uid", ODD_UIDS.values(), ids=ODD_UIDS)
def test_a_class_uid_that_is_odd_is_carried_as_it_is(gateway: Accepting, uid: str) -> None:
    with RawRequestor(gateway.port, contexts=[(1, uid, (EXPLICIT_LE,))]) as peer:
        assert peer.store("1.2.3", b"data", sop_class=uid) == 0
    assert [stored.request.sop_class_uid for stored in gateway.storage.instances] == [uid]


@pytest.mark.parametrize("title", ["A" * 65, "A\nB", "../../x", "\0\0"])
def test_a_hostile_move_originator_costs_nothing(gateway: Accepting, title: str) -> None:
    with RawRequestor(gateway.port) as peer:
        assert peer.store("1.2.3", b"data", move_originator_ae=title, move_originator_message_id=1) == 0


def test_a_hostile_abstract_syntax_costs_only_its_context(gateway: Accepting) -> None:
    contexts = [(1, "1.2.*", (EXPLICIT_LE,)), (3, "1" * 257, (EXPLICIT_LE,)), (5, CT, (EXPLICIT_LE,))]
    with RawRequestor(gateway.port, contexts=contexts) as peer:
        assert set(peer.accepted) == {5}
        assert peer.store("1.2.3", b"data", context_id=5) == 0


def test_a_request_of_nothing_but_oddities_is_answered(gateway: Accepting) -> None:
    odd = item(0x99, bytes(50)) + item(0x20, b"\x01") + item(0x50, b"\x54\0\0\x09\0\xffevil") + user_information(0)
    with gateway.connect() as sock:
        sock.sendall(pdu(0x01, REQUEST[6:74] + item(0x10, b"1.2.840.10008.3.1.1.1") + odd))
        assert Connection(sock).receive()[0] == ASSOCIATE_AC
    assert serves(gateway)


# Content


def test_a_deflate_bomb_passes_as_the_bytes_it_is(gateway: Accepting) -> None:
    packer = zlib.compressobj(wbits=-15)
    bomb = b"".join([*(packer.compress(bytes(MIB)) for _ in range(200)), packer.flush()])
    before = resident_bytes()
    with RawRequestor(gateway.port, contexts=[(1, CT, (DEFLATED,))]) as peer:
        assert peer.store("1.2.3", bomb) == 0
    (stored,) = gateway.storage.committed
    assert stored.data_set == bomb
    assert stored.request.transfer_syntax_uid == DEFLATED
    assert resident_bytes() - before < 16 * MIB


# Ends that come too early


@pytest.mark.parametrize("how", ["abort", "close", "reset", "release"])
@pytest.mark.parametrize("where", ["before the data set", "in the middle", "in a fragment"])
def test_an_end_in_the_middle_of_an_instance_leaves_nothing_of_it(how: str, where: str) -> None:
    # The bytes of an abort are then part of the fragment, which does not end.
    limits = NO_PDU if where == "in a fragment" and how in ("abort", "release") else PATIENT
    with accepting(limits) as gateway, closing(RawRequestor(gateway.port)) as peer:
        peer.send(peer.request("1.2.3"))
        if where != "before the data set":
            peer.send(pdu(P_DATA, pdv(1, bytes(131_000), command=False, last=False))[: -100 if where == "in a fragment" else None])
        wait_until(lambda: gateway.storage.instances, "the beginning of the instance")
        end(peer, how)
        assert gateway.storage.discarded.wait(PATIENCE_S)
        if how == "release" and where != "in a fragment":
            assert peer.receive()[0] == RELEASE_RP
        assert not gateway.storage.committed
        wait_until(lambda: gateway.acceptor.association_count == 0, "the end of the association")
        assert limits is NO_PDU or serves(gateway)


def end(peer: RawRequestor, how: str) -> None:
    ways: dict[str, Callable[[], object]] = {
        "abort": lambda: peer.send(pdu(ABORT, bytes(4))),
        "close": lambda: peer.sock.shutdown(socket.SHUT_RDWR),
        "reset": lambda: _reset(peer.sock),
        "release": lambda: peer.send(pdu(RELEASE_RQ, bytes(4))),
    }
    ways[how]()


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("seed", range(30))
def test_no_noise_brings_the_acceptor_down(gateway: Accepting, seed: int) -> None:
    dice = random.Random(seed)
    with closing(RawRequestor(gateway.port)) as peer, contextlib.suppress(Ended):
        wire = bytearray(peer.request("1.2.3") + b"".join(peer.fragments([bytes(5000)])))
        for _ in range(dice.randint(1, 8)):
            wire[dice.randrange(len(wire))] = dice.randrange(256)
        peer.send(bytes(wire))
        peer.sock.shutdown(socket.SHUT_WR)
        assert ends(peer.sock)
    wait_until(lambda: gateway.acceptor.association_count == 0, "the end of the association")
    assert serves(gateway)


def test_the_wall_clock_does_not_matter(gateway: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with closing(RawRequestor(gateway.port)) as peer:
        monkeypatch.setattr(time, "time", lambda: 4e9)
        assert peer.store("1.2.3", b"data") == 0
