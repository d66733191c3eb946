"""The address at which a peer would reach us: the one that the system would use to talk to it."""

from __future__ import annotations

import socket

_ANY_PORT = 11112


def address_towards(host: str) -> str:
    """Return our own address on the way to `host`, or this machine's name where there is no way. Sends nothing."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as sock:
            sock.connect(address)
            return str(sock.getsockname()[0])
    except OSError:
        return socket.gethostname()
