"""The beginning of an association that we request, and every way in which it fails."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from gateway.association.scu.requestor import Deadlines, RemoteAE, Requestor, associate
from gateway.association.upper.contexts import VERIFICATION_CONTEXTS, AcceptedContext, ProposedContext
from gateway.core.errors import (
    AssociationAborted,
    AssociationRejected,
    GatewayError,
    NoPresentationContext,
    PeerTimeout,
    PeerUnreachable,
    ProtocolError,
    TlsFailed,
)
from tests.support.certificates import TestCA
from tests.support.contexts import client_context, server_context
from tests.support.deadlines import PATIENT, hasty
from tests.support.ports import free_port
from tests.support.scripted import Conversation, scripted_peer

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
J2K = "1.2.840.10008.1.2.4.90"


def request(port: int, *contexts: ProposedContext, deadlines: Deadlines = PATIENT, **more: object) -> Requestor:
    remote = RemoteAE("PEER", "127.0.0.1", port)
    return associate(remote, "GATEWAY", contexts or VERIFICATION_CONTEXTS, deadlines=deadlines, **more)  # type: ignore[arg-type]


def test_both_sides_know_each_other_and_the_contexts() -> None:
    seen = []

    def script(peer: Conversation) -> None:
        seen.append(peer.accept(refuse=lambda context: context.context_id == 3))
        peer.release()

    contexts = (ProposedContext(CT, (EXPLICIT,)), ProposedContext(CT, (J2K,)), ProposedContext(MR, (EXPLICIT, IMPLICIT)))
    with scripted_peer(script) as peer, request(peer.port, *contexts, max_pdu_bytes=65536) as association:
        assert association.accepted == (AcceptedContext(1, CT, EXPLICIT), AcceptedContext(5, MR, EXPLICIT))
        assert association.refused == (contexts[1],)
        assert association.context_for(CT, EXPLICIT) == AcceptedContext(1, CT, EXPLICIT)
        assert association.context_for(MR) == AcceptedContext(5, MR, EXPLICIT)
        assert association.context_for(CT, J2K) is None
    assert (seen[0].calling_ae_title, seen[0].called_ae_title) == ("GATEWAY", "PEER")
    assert seen[0].maximum_length_received == 65536
    assert [len(context.transfer_syntax) for context in seen[0].presentation_context_definition_list] == [1, 1, 2]


def test_a_transfer_syntax_that_was_not_proposed_counts_as_refused() -> None:
    def script(peer: Conversation) -> None:
        peer.accept(choose=lambda context: J2K if context.context_id == 1 else context.transfer_syntax[0])
        peer.release()

    contexts = (ProposedContext(CT, (EXPLICIT,)), ProposedContext(MR, (EXPLICIT,)))
    with scripted_peer(script) as peer, request(peer.port, *contexts) as association:
        assert association.refused == contexts[:1]
        assert association.accepted == (AcceptedContext(3, MR, EXPLICIT),)


def test_128_contexts_are_proposed_at_once() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.release()

    contexts = tuple(ProposedContext(f"1.2.3.{number}", (EXPLICIT,)) for number in range(128))
    with scripted_peer(script) as peer, request(peer.port, *contexts) as association:
        assert len(association.accepted) == 128
        assert association.accepted[-1].context_id == 255


def test_an_association_without_any_context_is_released_and_reported() -> None:
    def script(peer: Conversation) -> None:
        peer.accept(refuse=lambda context: True)
        peer.release()

    with scripted_peer(script) as peer, pytest.raises(NoPresentationContext):
        request(peer.port)


def test_a_wanted_role_is_proposed_once_for_each_sop_class() -> None:
    seen = []

    def script(peer: Conversation) -> None:
        seen.append(peer.accept())
        peer.release()

    contexts = (
        ProposedContext(CT, (EXPLICIT,), scp_role=True),
        ProposedContext(CT, (J2K,), scp_role=True),
        ProposedContext(MR, (EXPLICIT,)),
    )
    with scripted_peer(script) as peer, request(peer.port, *contexts) as association:
        # The peer answers no role selection, so the requestor stays SCU (PS3.7 §D.3.3.4).
        assert [(context.as_scu, context.as_scp) for context in association.accepted] == [(True, False)] * 3
    roles = [item for item in seen[0].user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    assert [(role.sop_class_uid, role.scu_role, role.scp_role) for role in roles] == [(CT, False, True)]


@pytest.mark.parametrize(
    ("result", "source", "reason", "meaning", "retryable"),
    [
        (1, 1, 1, "no reason given", False),
        (1, 1, 2, "application context name not supported", False),
        (1, 1, 3, "calling AE title not recognized", False),
        (1, 1, 7, "called AE title not recognized", False),
        (1, 2, 2, "protocol version not supported", False),
        (2, 3, 1, "temporary congestion", True),
        (2, 3, 2, "local limit exceeded", True),
        (2, 3, 7, "source 3, reason 7", True),
    ],
)
def test_a_rejection_says_why_and_whether_to_try_again(
    result: int, source: int, reason: int, meaning: str, retryable: bool
) -> None:
    with scripted_peer(lambda peer: peer.reject(result, source, reason)) as peer:
        with pytest.raises(AssociationRejected, match=meaning) as caught:
            request(peer.port)
        assert caught.value.retryable is retryable
        assert (caught.value.result, caught.value.source, caught.value.reason) == (result, source, reason)
        assert caught.value.peer == f"PEER@127.0.0.1:{peer.port}"


def test_a_peer_that_aborts_instead_of_answering() -> None:
    def script(peer: Conversation) -> None:
        peer.read_request()
        peer.abort(2, 1)

    with scripted_peer(script) as peer, pytest.raises(AssociationAborted, match="aborted") as raised:
        request(peer.port)
    assert "TLS" not in str(raised.value)


@pytest.mark.parametrize("how", ["close", "reset", "close in the middle of a PDU"])
def test_a_peer_that_hangs_up_instead_of_answering(how: str) -> None:
    def script(peer: Conversation) -> None:
        peer.read_request()
        if how == "reset":
            peer.reset()
        elif how != "close":
            peer.send(b"\x02\x00\x00\x00\x00\xff\x00\x01")

    with scripted_peer(script) as peer, pytest.raises(AssociationAborted, match="does it expect TLS on this port"):
        request(peer.port)


def test_a_peer_that_never_answers_is_given_up_in_time() -> None:
    def script(peer: Conversation) -> None:
        peer.read_request()
        peer.until_gone()

    with scripted_peer(script) as peer, pytest.raises(PeerTimeout):
        request(peer.port, deadlines=hasty(associate_s=0.5))


def test_a_peer_that_trickles_its_answer_is_given_up_in_time() -> None:
    def script(peer: Conversation) -> None:
        peer.read_request()
        peer.send(b"\x02\x00\x00\x00\x10\x00")
        while not scripted.stop.wait(0.05):
            peer.send(b"\x00")

    with scripted_peer(script) as scripted, pytest.raises(PeerTimeout):
        request(scripted.port, deadlines=hasty(associate_s=0.5))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(60),
        b"\x02\x00\x00\x00\x00\x04abcd",
        b"\x02\x00\x00\x00\x00\x4e\x00\x01" + bytes(66) + b"\x21\x00\xff\xff\x01\x00\x00\x00\x40\x00",
        b"\x02\x00\xff\xff\xff\xff" + bytes(100),
        b"\x03\x00\x00\x00\x00\x01\x00",
        b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab",
    ],
    ids=["HTTP", "short AC", "broken item", "length bomb", "short RJ", "release response", "P-DATA"],
)
def test_a_peer_that_answers_nonsense(answer: bytes) -> None:
    def script(peer: Conversation) -> None:
        peer.read_request()
        peer.send(answer)
        peer.until_gone()

    with scripted_peer(script) as peer, pytest.raises((ProtocolError, NoPresentationContext)):
        request(peer.port)


def test_nobody_listens_there() -> None:
    with pytest.raises(PeerUnreachable, match=r"PEER@127\.0\.0\.1"):
        request(free_port())


def test_a_host_without_an_address() -> None:
    with pytest.raises(PeerUnreachable, match="no address"):
        associate(RemoteAE("PEER", "no-such-host.invalid", 104), "GATEWAY", VERIFICATION_CONTEXTS, deadlines=PATIENT)


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.release()

    with scripted_peer(script) as peer:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        addresses = [(*kind, ("127.0.0.1", free_port())), (*kind, ("127.0.0.1", peer.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: addresses)
        associate(RemoteAE("PEER", "two.example", 104), "GATEWAY", VERIFICATION_CONTEXTS, deadlines=PATIENT).release()


def test_a_listener_that_takes_no_connection_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:  # the backlog is full now
            second.setblocking(False)
            second.connect_ex(address)
            with pytest.raises((PeerUnreachable, PeerTimeout)):
                associate(
                    RemoteAE("PEER", *address),
                    "GATEWAY",
                    VERIFICATION_CONTEXTS,
                    deadlines=hasty(connect_s=0.5),
                )


def over_tls(port: int, context: ssl.SSLContext, *, server_name: str | None = None, deadlines: Deadlines = PATIENT) -> Requestor:
    remote = RemoteAE("PEER", "127.0.0.1", port, tls=context, server_name=server_name)
    return associate(remote, "GATEWAY", VERIFICATION_CONTEXTS, deadlines=deadlines)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_association_over_mutual_tls(ca: TestCA, version: ssl.TLSVersion) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.answer(peer.read_message(), 0x0000)
        peer.release()

    context = client_context(ca.issue("gateway"))
    context.maximum_version = context.minimum_version = version
    with scripted_peer(script, tls=server_context(ca.issue("peer"))) as peer, over_tls(peer.port, context) as association:
        association.echo()


@pytest.mark.parametrize("fault", ["name", "authority", "expired"])
def test_a_certificate_that_does_not_hold_ends_it_before_anything_is_sent(ca: TestCA, tmp_path: Path, fault: str) -> None:
    def script(peer: Conversation) -> None:
        raise AssertionError("the handshake must have failed")

    issuer = TestCA(tmp_path / "other") if fault == "authority" else ca
    if fault == "name":
        shown = issuer.issue("elsewhere", names=["elsewhere.example"], addresses=[])
    else:
        shown = issuer.issue(f"faulty-{fault}", not_before_days=-30, days=-1 if fault == "expired" else 365)
    server = server_context({**ca.issue("peer"), "certificate": shown["certificate"], "key": shown["key"]})
    with pytest.raises(ssl.SSLError), scripted_peer(script, tls=server) as peer:  # the peer's side of the failed handshake
        with pytest.raises(TlsFailed) as caught:
            over_tls(peer.port, client_context(ca.issue("gateway")))
        assert not caught.value.retryable


def test_the_name_in_the_certificate_may_be_set(ca: TestCA) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.release()

    shown = ca.issue("pacs", names=["pacs.example"], addresses=[])
    with scripted_peer(script, tls=server_context(shown)) as peer:
        over_tls(peer.port, client_context(ca.issue("gateway")), server_name="pacs.example").release()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_peer_that_wants_a_certificate_which_we_do_not_show(ca: TestCA, version: ssl.TLSVersion) -> None:
    context = client_context(ca.issue("gateway"), show=False)
    context.maximum_version = context.minimum_version = version
    serving = scripted_peer(lambda peer: None, tls=server_context(ca.issue("peer")))
    with pytest.raises(ssl.SSLError), serving as peer, pytest.raises(TlsFailed):
        over_tls(peer.port, context)


def test_a_peer_without_tls_on_a_tls_port(ca: TestCA) -> None:
    def script(peer: Conversation) -> None:
        peer.read_exactly(5)
        peer.send(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x01")

    with scripted_peer(script) as peer, pytest.raises(TlsFailed):
        over_tls(peer.port, client_context(ca.issue("gateway")))


def test_a_tls_handshake_that_never_ends_is_given_up_in_time(ca: TestCA) -> None:
    def script(peer: Conversation) -> None:
        peer.read_exactly(5)
        scripted.stop.wait(10)

    with scripted_peer(script) as scripted, pytest.raises(PeerTimeout):
        over_tls(scripted.port, client_context(ca.issue("gateway")), deadlines=hasty(connect_s=0.5))


def test_too_many_or_no_contexts_are_a_mistake_of_ours() -> None:
    with pytest.raises((ValueError, GatewayError)):
        associate(RemoteAE("PEER", "127.0.0.1", free_port()), "GATEWAY", [], deadlines=PATIENT)
