"""Connected sockets and what stands on them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from gateway.association.upper.stream import Stream

Pair = tuple[Stream, socket.socket]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.settimeout(20)
    return server, client


@pytest.fixture
def connected() -> Iterator[Callable[..., Pair]]:
    """`connected(send_s=…)`: our end as a `Stream`, and the peer's as a bare socket."""
    with ExitStack() as stack:

        def make(*, send_s: float = 5.0) -> Pair:
            server, client = tcp_pair()
            stack.enter_context(client)
            return stack.enter_context(Stream(server, peer="PEER", send_s=send_s)), client

        yield make
