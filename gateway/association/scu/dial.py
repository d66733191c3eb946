"""A connection to a peer: every address of its name is tried, then TLS, all within one deadline. On the caller's thread.

TLS sessions are resumed, and are all that outlives a connection here.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from gateway.association.dimse.message import Receiver
from gateway.association.dimse.requests import Deadlines, RemoteAE
from gateway.association.upper.resumption import Sessions, TlsPeer
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, AssociationError, ConnectionLost, PeerUnreachable, TlsFailed
from gateway.security.tls import handshake_failure

Address = tuple[socket.AddressFamily, Any]

ALERT_S = 0.5
"""The longest time that reading the alert that ended a TLS connection may take."""

_sessions = Sessions()


def dial(remote: RemoteAE, deadlines: Deadlines) -> Stream:
    """Return an open connection to `remote`, with TLS where it wants that, within `deadlines.connect_s`.

    Each of the name's addresses gets an equal share of the time that is left. Resolving the name is the operating system's
    and has its own timeouts. Whether the name in the certificate is checked is the setting of `remote.tls`.

    Raises:
        PeerUnreachable: the name has no address, or no address takes a connection.
        PeerTimeout, TlsFailed: no TLS session; the second will not come by waiting.
    """
    deadline = time.monotonic() + deadlines.connect_s
    addresses = _resolve(remote)
    if remote.tls is None:
        return _open(remote, addresses, deadlines, deadline)
    session = _sessions.take(_tls_peer(remote, remote.tls))
    try:
        return _secured(remote, remote.tls, session, _open(remote, addresses, deadlines, deadline), deadline)
    except TlsFailed:
        if session is None:
            raise
        # Whether or not the peer says why it refuses the session, it may take a new one.
        forget(remote)
        return _secured(remote, remote.tls, None, _open(remote, addresses, deadlines, deadline), deadline)


def remember(remote: RemoteAE, stream: Stream) -> None:
    """Have the next connection to `remote` resume the TLS session of `stream`; call it once the peer has answered there."""
    if remote.tls is not None:
        _sessions.keep(_tls_peer(remote, remote.tls), stream)


def forget(remote: RemoteAE) -> None:
    """Have the next connection to `remote` begin a TLS session of its own, for a peer that did not answer on this one."""
    if remote.tls is not None:
        _sessions.forget(_tls_peer(remote, remote.tls))


def why_lost(stream: Stream, receiver: Receiver, error: AssociationAborted) -> AssociationError:
    """Return `TlsFailed` where it was TLS that ended the connection: in TLS 1.3 a peer refuses our certificate only now.

    Its alert may still wait to be read when sending already fails. A peer that expects TLS takes a plain A-ASSOCIATE-RQ for
    nonsense and hangs up without a word of DICOM.
    """
    if not stream.tls:
        if not isinstance(error, ConnectionLost):
            return error
        what = str(error).removeprefix(f"{stream.peer}: ")
        return ConnectionLost(f"{what} before it had answered: does it expect TLS on this port?", peer=stream.peer)
    try:
        receiver.wait(ALERT_S)
    except AssociationAborted as later:
        cause = next((found for found in (error.__cause__, later.__cause__) if _is_alert(found)), None)
        if isinstance(cause, ssl.SSLError):
            return TlsFailed(handshake_failure(cause), peer=stream.peer)
    return error


def _is_alert(cause: BaseException | None) -> bool:
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _tls_peer(remote: RemoteAE, context: ssl.SSLContext) -> TlsPeer:
    return TlsPeer(context, remote.host, remote.port, remote.server_name or remote.host)


def _open(remote: RemoteAE, addresses: list[Address], deadlines: Deadlines, deadline: float) -> Stream:
    return Stream(_connect(remote, addresses, deadline), peer=str(remote), send_s=deadlines.send_s)


def _secured(remote: RemoteAE, context: ssl.SSLContext, session: ssl.SSLSession | None, stream: Stream, deadline: float) -> Stream:
    try:
        stream.secure(context, deadline=deadline, server_side=False, server_name=remote.server_name or remote.host, session=session)
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
