"""Free TCP ports on the loopback address."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"

_given: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on now and that this session has not given out before."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def listens(port: int, host: str = HOST) -> bool:
    """Tell whether something accepts TCP connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
