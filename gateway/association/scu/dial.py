"""A connection to a peer: every address of its name is tried, then TLS, all within one deadline. On the caller's thread.

A `KillSwitch` that the thread is under ends it in every phase but the resolution of the name.
TLS sessions are resumed, and are all that outlives a connection here.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from gateway.association.dimse.message import Receiver
from gateway.association.dimse.requests import Deadlines, RemoteAE
from gateway.association.scu.kill_switch import killable
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
        AssociationAborted: a `KillSwitch` that the thread is under was used.
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
    stream = Stream(_connect(remote, addresses, deadline), peer=str(remote), send_s=deadlines.send_s)
    killable(stream)
    return stream


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
            return _Attempt(family, str(remote)).connect(address, max(share, 0.001))
        except OSError as error:
            failure = error
    raise PeerUnreachable(f"no connection ({_words(failure)})", peer=str(remote)) from failure


class _Attempt:
    """A socket while it is being connected, which a `KillSwitch` can break off."""

    def __init__(self, family: socket.AddressFamily, peer: str) -> None:
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._peer = peer
        self._lock = threading.Lock()
        self._killed = False

    def connect(self, address: Any, timeout_s: float) -> socket.socket:
        """Return the connected socket. Raises AssociationAborted after `kill`, else OSError; then it is closed."""
        killable(self)
        try:
            failure = self._begin(address)
            if failure == errno.EINPROGRESS:
                poll = select.poll()
                poll.register(self._socket, select.POLLOUT)
                if not poll.poll(math.ceil(timeout_s * 1000)):
                    raise TimeoutError
                failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._go_on()
            if failure:
                raise OSError(failure, os.strerror(failure))
        except BaseException:
            with self._lock:
                self._socket.close()
            raise
        return self._socket

    def kill(self) -> None:
        """End `connect` at once. From any thread. Never raises."""
        with self._lock, suppress(OSError):
            self._killed = True
            self._socket.shutdown(socket.SHUT_RDWR)

    def _begin(self, address: Any) -> int:
        # Under the lock: a shutdown before there is anything to shut down would be lost.
        with self._lock:
            self._socket.setblocking(False)
            return 0 if self._killed else self._socket.connect_ex(address)

    def _go_on(self) -> None:
        with self._lock:
            if self._killed:
                raise AssociationAborted("the association was ended on our side", peer=self._peer)


def _words(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or (type(error).__name__ if error else "no address")
