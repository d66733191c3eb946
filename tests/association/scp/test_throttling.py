"""A peer that has a rate is held to it: bytes and waits are counted over real connections, no time is measured."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.association.dimse.message import Receiver
from gateway.association.dimse.sender import STRETCH_BYTES
from gateway.association.scu.requestor import RemoteAE, Requestor, associate
from gateway.association.upper.contexts import plan_contexts
from gateway.association.upper.state import State
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, AssociationError, AssociationRejected, ConnectionLost
from gateway.core.throttle import CATCH_UP_S, Throttle
from tests.association.conftest import tcp_pair
from tests.support.accepting import Accepting, accepting
from tests.support.ports import HOST
from tests.support.raw import CT, EXPLICIT_LE, P_DATA, RawRequestor, command_set, pdu, pdv
from tests.support.sources import source_of
from tests.support.throttles import Counting
from tests.support.waiting import PATIENCE_S, in_time, wait_until

DAY_S = 86_400.0
MB = 1_000_000


@pytest.fixture
def gateway() -> Iterator[Accepting]:
    with accepting() as running:
        yield running


def opened(port: int, *, calling: str = "GATEWAY", sending: Throttle | None = None) -> Requestor:
    return associate(RemoteAE("GATEWAY", HOST, port, sending=sending), calling, plan_contexts([(CT, EXPLICIT_LE)])[0])


def store(association: Requestor, folder: Path, data: bytes, uid: str = "1.2.3") -> int:
    context = association.context_for(CT, EXPLICIT_LE)
    assert context is not None
    with source_of(data, folder) as source:
        return association.store(context, uid, source).status


def close_to(seconds: float, count: int, rate: float) -> None:
    """Check that `count` bytes took `seconds` at `rate`, but for what may be caught up and the last piece."""
    assert count / rate - CATCH_UP_S - STRETCH_BYTES / rate - 0.01 <= seconds <= count / rate


# Sending


@pytest.mark.parametrize("rate", [100_000.0, 2e6, 50e6])
def test_what_is_sent_takes_as_long_as_the_rate_says_and_arrives_as_it_is(gateway: Accepting, tmp_path: Path, rate: float) -> None:
    throttle, data = Counting(rate), os.urandom(3 * MB)
    association = opened(gateway.port, sending=throttle)
    assert store(association, tmp_path, data) == 0
    association.release()
    assert gateway.storage.committed[0].data_set == data
    sent = sum(throttle.taken)
    assert len(data) <= sent <= 1.01 * len(data), "what is counted is what goes out, headers too"
    close_to(throttle.asked_s, sent, rate)
    assert max(throttle.taken) <= max(throttle.piece_bytes, 131_072) + 1000


def test_associations_of_a_peer_share_its_rate(gateway: Accepting, tmp_path: Path) -> None:
    throttle = Counting(MB)
    associations = [opened(gateway.port, sending=throttle) for _ in range(3)]
    for number, association in enumerate(associations):
        store(association, tmp_path, os.urandom(MB), f"1.2.{number}")
        association.release()
    close_to(throttle.asked_s, sum(throttle.taken), MB)
    assert throttle.asked_s > 2.5


def test_killing_ends_a_wait_for_the_turn_to_send(gateway: Accepting, tmp_path: Path) -> None:
    throttle = Counting(MB, real_s=lambda asked_s: DAY_S if asked_s else 0.0)
    association, failures = opened(gateway.port, sending=throttle), list[AssociationError]()

    def run() -> None:
        try:
            store(association, tmp_path, os.urandom(3 * MB))
        except AssociationError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: throttle.asked_s, "a wait")
    association.kill()
    thread.join(PATIENCE_S)
    assert [type(failure) for failure in failures] == [AssociationAborted]
    wait_until(gateway.storage.discarded.is_set, "what had come is forgotten")


# Receiving


def test_what_a_source_sends_is_taken_as_fast_as_the_rate_says(gateway: Accepting, tmp_path: Path) -> None:
    throttle = Counting(MB)
    gateway.admission.limits["SLOW"] = (None, throttle)
    data = os.urandom(3 * MB)
    slow, other = opened(gateway.port, calling="SLOW"), opened(gateway.port, calling="OTHER")
    assert store(slow, tmp_path, data, "1.2.1") == 0
    assert store(slow, tmp_path, b"small", "1.2.2") == 0
    taken = sum(throttle.taken)
    assert store(other, tmp_path, data, "1.2.3") == 0
    for association in (slow, other):
        association.release()
    assert [len(stored.data_set) for stored in gateway.storage.committed] == [3 * MB, 6, 3 * MB]
    assert gateway.storage.committed[0].data_set == data
    assert 3 * MB <= taken <= 1.01 * 3 * MB
    close_to(throttle.asked_s, taken, MB)
    assert max(throttle.taken) <= throttle.piece_bytes
    assert sum(throttle.taken) - taken < 1000, "another source is not held back, and not counted"


def test_what_we_wait_is_not_counted_as_the_peers_slowness() -> None:
    ours, theirs = tcp_pair()
    data = os.urandom(200_000)
    with Stream(ours, peer="PEER") as stream, theirs:
        receiver = Receiver(stream, state=State.ESTABLISHED, max_pdu_bytes=1 << 20, pdu_s=2.0)
        receiver.throttle = Counting(100_000.0, real_s=lambda _asked_s: 0.5)
        command = command_set(affected_sop_class=CT, command_field=1, message_id=1, data_set_type=1)
        wire = pdu(P_DATA, pdv(1, command, command=True, last=True)) + pdu(P_DATA, pdv(1, data, command=False, last=True))
        threading.Thread(target=theirs.sendall, args=(wire,), daemon=True).start()
        message = receiver.receive_message(PATIENCE_S)
        assert message is not None
        received = bytearray()
        receiver.receive_data_set(message, lambda fragments: received.extend(b"".join(fragments)))
    assert received == data
    assert len(receiver.throttle.taken) > 4, "the waits together were longer than the time for a PDU"


def test_killing_ends_a_wait_for_the_turn_to_receive(gateway: Accepting, tmp_path: Path) -> None:
    throttle = Counting(MB, real_s=lambda asked_s: DAY_S if asked_s else 0.0)
    gateway.admission.limits["SLOW"] = (None, throttle)
    association = opened(gateway.port, calling="SLOW")
    failed = threading.Event()

    def run() -> None:
        try:
            store(association, tmp_path, os.urandom(3 * MB))
        except AssociationError:
            failed.set()

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: throttle.asked_s, "a wait")
    assert not gateway.acceptor.drain(0.05), "it was cut off"
    thread.join(PATIENCE_S)
    assert failed.is_set()
    wait_until(lambda: gateway.acceptor.association_count == 0, "no association left")


def test_a_connection_that_is_reset_ends_a_wait() -> None:
    ours, theirs = tcp_pair()
    with Stream(ours, peer="PEER") as stream:
        theirs.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: closing resets
        threading.Thread(target=theirs.close).start()
        stream.pause(DAY_S)
        with pytest.raises(ConnectionLost):
            stream.receive_into(memoryview(bytearray(1)), in_time())


def test_a_wait_that_nothing_ends_ends_by_itself() -> None:
    ours, theirs = tcp_pair()
    with Stream(ours, peer="PEER") as stream, theirs:
        theirs.sendall(b"x")
        stream.pause(0.02)
        assert stream.receive_into(memoryview(bytearray(1)), in_time()) == 1


# Limits on the number of associations


def test_a_source_at_its_association_limit_leaves_others_theirs(gateway: Accepting) -> None:
    gateway.admission.limits["TWO"] = (2, None)
    gateway.admission.limits["MANY"] = (None, None)
    first, second = opened(gateway.port, calling="TWO"), opened(gateway.port, calling="TWO")
    with pytest.raises(AssociationRejected) as rejected:
        opened(gateway.port, calling="TWO")
    assert (rejected.value.result, rejected.value.source, rejected.value.reason) == (2, 3, 2)
    assert rejected.value.retryable
    others = [opened(gateway.port, calling=who) for who in ("MANY", "MANY", "MANY", "UNKNOWN")]
    first.release()
    wait_until(lambda: gateway.acceptor.association_count == 5, "the first has ended")
    with RawRequestor(gateway.port, calling="TWO") as again:
        assert again.store("1.2.3", b"data") == 0
    for association in (second, *others):
        association.release()
