"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

_RANGE = range(20000, 32000)
"""Below the ports that the kernel gives to outgoing connections: nothing else takes one between the probe and its use."""

_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    """Return a port that nothing listens on now and that this process has not given out before; others rarely get the same."""
    while True:
        port = _random.choice(_RANGE)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def listens(port: int, host: str = HOST) -> bool:
    """Tell whether something accepts TCP connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
