"""Associations that are broken off from another thread before they are open, in each phase."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.association.scu.kill_switch import KillSwitch
from gateway.association.scu.requestor import Deadlines, RemoteAE, associate
from gateway.association.upper.contexts import VERIFICATION_CONTEXTS
from gateway.core.errors import AssociationAborted, GatewayError
from tests.support.certificates import TestCA
from tests.support.contexts import client_context
from tests.support.scripted import Conversation, scripted_peer
from tests.support.waiting import PATIENCE_S, wait_until

NEVER_S = 86_400.0
NEVER = Deadlines(connect_s=NEVER_S, associate_s=NEVER_S, response_s=NEVER_S, send_s=NEVER_S, release_s=NEVER_S)
"""No deadline ends what these tests wait for: only the switch does."""


class Opening:
    """A thread that opens an association under a switch, and the error it ends with."""

    def __init__(self, remote: RemoteAE) -> None:
        self.switch = KillSwitch()
        self.errors: list[GatewayError] = []
        self._remote = remote
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self.switch.on_this_thread(), associate(self._remote, "GATEWAY", VERIFICATION_CONTEXTS, deadlines=NEVER):
                pass
        except GatewayError as error:
            self.errors.append(error)

    def kill(self) -> list[str]:
        """Use the switch; return the kinds of errors that the thread ended with."""
        self.switch.kill()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return [type(error).__name__ for error in self.errors]


@contextmanager
def full_backlog() -> Iterator[int]:
    """Give a port whose queue of connections is full: a connect to it is neither taken nor refused."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = server.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def connecting_to(port: int) -> int:
    """Return how many sockets of this machine wait for an answer to their SYN to `port`: state 02 of the kernel's table."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_a_connect_that_nobody_answers_is_broken_off() -> None:
    with full_backlog() as port:
        before = wait_until(lambda: connecting_to(port), "a connect that hangs")
        opening = Opening(RemoteAE("PEER", "127.0.0.1", port))
        wait_until(lambda: connecting_to(port) > before, "our connect, which hangs too")
        assert opening.kill() == ["AssociationAborted"]


@pytest.mark.parametrize("tls", [False, True], ids=["A-ASSOCIATE-AC", "TLS handshake"])
def test_waiting_for_the_first_answer_is_broken_off(tls: bool, ca: TestCA) -> None:
    context = client_context(ca.issue("gateway")) if tls else None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        opening = Opening(RemoteAE("PEER", "127.0.0.1", silent.getsockname()[1], tls=context))
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(PATIENCE_S)
            assert peer.recv(65536)
            assert opening.kill() == ["AssociationAborted"]


def test_after_the_switch_was_used_nothing_begins() -> None:
    switch = KillSwitch()
    switch.kill()
    with socket.create_server(("127.0.0.1", 0)) as silent, switch.on_this_thread(), pytest.raises(AssociationAborted):
        associate(RemoteAE("PEER", "127.0.0.1", silent.getsockname()[1]), "GATEWAY", VERIFICATION_CONTEXTS, deadlines=NEVER)


@pytest.mark.parametrize("used", [0, 1], ids=["the outer", "the inner"])
def test_either_of_two_switches_ends_it(used: int) -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.until_gone()

    switches = KillSwitch(), KillSwitch()
    with scripted_peer(script) as peer, switches[0].on_this_thread(), switches[1].on_this_thread():
        remote = RemoteAE("PEER", "127.0.0.1", peer.port)
        with pytest.raises(AssociationAborted), associate(remote, "GATEWAY", VERIFICATION_CONTEXTS, deadlines=NEVER) as open_one:
            switches[used].kill()
            open_one.echo()


def test_an_association_is_left_alone_once_its_thread_left_the_switch() -> None:
    def script(peer: Conversation) -> None:
        peer.accept()
        peer.release()

    switch = KillSwitch()
    with scripted_peer(script) as peer:
        with switch.on_this_thread():
            kept = associate(RemoteAE("PEER", "127.0.0.1", peer.port), "GATEWAY", VERIFICATION_CONTEXTS, deadlines=NEVER)
        switch.kill()
        kept.release()
