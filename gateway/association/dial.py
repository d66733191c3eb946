"""A connection to a peer: every address of its name is tried, then TLS, all within one deadline. On the caller's thread."""

from __future__ import annotations

import socket
import time
from typing import Any

from gateway.association.requests import Deadlines, RemoteAE
from gateway.association.stream import Stream
from gateway.errors import PeerUnreachable

Address = tuple[socket.AddressFamily, Any]


def dial(remote: RemoteAE, deadlines: Deadlines) -> Stream:
    """Return an open connection to `remote`, with TLS where it wants that, within `deadlines.connect_s`.

    Each of the name's addresses gets an equal share of the time that is left. Resolving the name is the operating system's
    and has its own timeouts. Whether the name in the certificate is checked is the setting of `remote.tls`.

    Raises:
        PeerUnreachable: the name has no address, or no address takes a connection.
        PeerTimeout, TlsFailed: no TLS session; the second will not come by waiting.
    """
    deadline = time.monotonic() + deadlines.connect_s
    stream = Stream(_connect(remote, _resolve(remote), deadline), peer=str(remote), send_s=deadlines.send_s)
    if remote.tls is None:
        return stream
    try:
        stream.secure(remote.tls, deadline=deadline, server_side=False, server_name=remote.server_name or remote.host)
    except BaseException:
        stream.close()
        raise
    return stream


def _resolve(remote: RemoteAE) -> list[Address]:
    try:
        found = socket.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PeerUnreachable(f"the host name has no address ({_words(error)})", peer=str(remote)) from error
    return [(family, address) for family, _, _, _, address in found]


def _connect(remote: RemoteAE, addresses: list[Address], deadline: float) -> socket.socket:
    failure: OSError | None = None
    for position, (family, address) in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - position)
        try:
            return _connected(family, address, max(share, 0.001))
        except OSError as error:
            failure = error
    raise PeerUnreachable(f"no connection ({_words(failure)})", peer=str(remote)) from failure


def _connected(family: socket.AddressFamily, address: Any, timeout_s: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _words(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or (type(error).__name__ if error else "no address")
