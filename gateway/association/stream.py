"""A connection with deadlines: a TCP socket, plain or TLS, on which every wait ends.

Blocking and without polling: the kernel times each wait (SO_RCVTIMEO, SO_SNDTIMEO) and a monotonic deadline spans several of
them, so that a peer which trickles bytes holds nothing for longer than one that sends none. Errors of sockets and of TLS
become those of `gateway.errors` here and nowhere else. One thread at a time sends and receives; `kill` and `wake` may come
from any.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from types import TracebackType
from typing import Self

from gateway.errors import AssociationAborted, AssociationError, ConnectionLost, PeerTimeout, TlsFailed
from gateway.tls import certificate_names, handshake_failure

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_LINGER_BYTES = 4 * 1024 * 1024
_TIMEVAL = struct.Struct("@ll")


class Stream:
    """An open connection to `peer` (a name for messages). It owns the socket from the start, also when making it fails."""

    def __init__(self, sock: socket.socket, *, peer: str, send_s: float = 30.0) -> None:
        self.peer = peer
        self.tls = False
        self.woken = False
        self._socket = sock
        self._send_s = send_s
        self._receive_s = 0.0
        self._lock = threading.Lock()
        self._killed = False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(None)
            self._time(socket.SO_SNDTIMEO, send_s)
        except OSError as error:
            sock.close()
            raise self._lost(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def secure(self, context: ssl.SSLContext, *, deadline: float, server_side: bool, server_name: str | None = None) -> None:
        """Do the TLS handshake, all of it before `deadline` (monotonic seconds), whatever the peer trickles.

        Raises:
            TlsFailed: no TLS session; the message says why. After `kill`, AssociationAborted.
            PeerTimeout: the handshake did not end in time.
        """
        wrapped = self._wrap(context, server_side, server_name)
        try:
            wrapped.settimeout(max(deadline - time.monotonic(), 0.001))
            wrapped.do_handshake()
        except OSError as error:
            if self._killed:
                raise self._lost(error) from error
            failure = PeerTimeout if isinstance(error, TimeoutError) else TlsFailed
            raise failure(_handshake_reason(error), peer=self.peer) from error
        self.tls = True

    def _wrap(self, context: ssl.SSLContext, server_side: bool, server_name: str | None) -> ssl.SSLSocket:
        with self._lock:
            try:
                self._socket = wrapped = context.wrap_socket(
                    self._socket, server_side=server_side, server_hostname=server_name, do_handshake_on_connect=False
                )
            except (OSError, ValueError) as error:
                raise TlsFailed(_handshake_reason(error), peer=self.peer) from error
            return wrapped

    def certificate_names(self) -> tuple[str, ...] | None:
        """Return the names in the peer's certificate, empty where it showed none or an unreadable one; None without TLS."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return None
        der = self._socket.getpeercert(binary_form=True)
        try:
            return certificate_names(der) if der else ()
        except ValueError:
            return ()

    def receive_into(self, view: memoryview, deadline: float) -> int:
        """Wait for bytes and put those that are there into `view`; return how many, at least one.

        Raises:
            PeerTimeout: none came before `deadline` (monotonic seconds).
            AssociationAborted: the connection was closed or reset, or `kill` or `wake` was called.
        """
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise PeerTimeout("the peer sent nothing more in time", peer=self.peer)
            if self._receive_s > 1.25 * remaining + 0.05 or self._receive_s < remaining / 8:
                self._receive_s = remaining
                self._time(socket.SO_RCVTIMEO, remaining)
            try:
                count = self._socket.recv_into(view)
            except (BlockingIOError, TimeoutError):
                continue
            except OSError as error:
                raise self._lost(error) from error
            if not count:
                raise self._lost(None)
            if _QUICKACK is not None:
                self._rearm(_QUICKACK)
            return count

    def send(self, data: memoryview | bytes | bytearray) -> None:
        """Send all of `data`, a stretch of a message: a peer that reads a byte now and then is not waited for.

        Raises:
            PeerTimeout: the peer did not take `data` within the time given at the start.
            AssociationAborted: the connection was closed or reset, or `kill` was called.
        """
        view = memoryview(data)
        deadline = time.monotonic() + self._send_s
        if self.tls:
            self._time(socket.SO_SNDTIMEO, self._send_s)
            self._receive_s = 0.0
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, TimeoutError) as error:
                raise self._unread() from error
            except OSError as error:
                raise self._lost(error) from error
            if view and time.monotonic() >= deadline:
                raise self._unread()

    def stirs(self) -> bool:
        """Tell at once whether something came, be it the end of the connection. Under TLS it may turn out to be nothing to read."""
        if self._socket.fileno() < 0 or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def hasten(self) -> None:
        """Have what comes next acknowledged at once, for the wait after sending: the kernel took the ACKs back to delayed ones."""
        if _QUICKACK is not None:
            self._rearm(_QUICKACK)

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._socket.fileno()

    def kill(self) -> None:
        """End the connection: who waits on it gets AssociationAborted at once. From any thread, any number of times."""
        with self._lock:
            self._killed = True
            self._shut(socket.SHUT_RDWR)

    def wake(self) -> None:
        """End the receiving half: who waits for bytes gets AssociationAborted. From any thread.

        Sending still works without TLS; to OpenSSL the end of the bytes is the end of the session, so there the peer is told
        by an alert only.
        """
        with self._lock:
            self.woken = True
            self._shut(socket.SHUT_RD)

    def farewell(self, last_words: bytes, limit_s: float) -> None:
        """Send `last_words`, let the peer read them, and close, all within about `limit_s`. Never raises.

        A close with bytes unread would reset the connection and take an A-ABORT or A-ASSOCIATE-RJ with it, so what still comes
        is read and dropped until the peer closes.
        """
        deadline = time.monotonic() + limit_s
        with contextlib.suppress(AssociationError):
            self._send_s = limit_s
            self._time(socket.SO_SNDTIMEO, limit_s)
            self.send(last_words)
            with self._lock:
                self._shut(socket.SHUT_WR)
            self._drop_until(deadline)
        self.close()

    def _drop_until(self, deadline: float) -> None:
        scrap = bytearray(65536)
        dropped = 0
        with contextlib.suppress(OSError):
            while dropped < _LINGER_BYTES and (remaining := deadline - time.monotonic()) > 0:
                self._time(socket.SO_RCVTIMEO, remaining)
                count = socket.socket.recv_into(self._socket, scrap)
                if not count:
                    break
                dropped += count

    def close(self) -> None:
        """Close the connection. Any number of times."""
        with self._lock:
            self._socket.close()

    def _shut(self, how: int) -> None:
        """Shut the socket itself down: SSLSocket's own method forgets the session, and what is sent then goes out in clear."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, how)

    def _time(self, option: int, seconds: float) -> None:
        """Let waits for receiving (SO_RCVTIMEO) or sending (SO_SNDTIMEO) last `seconds`.

        Under TLS it is Python that waits, in ``poll``: it has the whole of a call end in time, while OpenSSL goes on reading a
        record for as long as the kernel brings one byte of it before each timeout. There is but one time for both directions.
        """
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(max(seconds, 0.001))
            else:
                whole = int(seconds)
                # A timeout of zero would mean none.
                micros = max(int((seconds - whole) * 1_000_000), 1000)
                self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(whole, micros))
        except OSError as error:
            raise self._lost(error) from error

    def _rearm(self, quickack: int) -> None:
        """Have the next segment acknowledged at once: the kernel falls back to delayed ACKs, and a peer's Nagle waits for them."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, quickack, 1)

    def _unread(self) -> PeerTimeout:
        return PeerTimeout(f"the peer did not read what was sent within {self._send_s:g} s", peer=self.peer)

    def _lost(self, error: OSError | None) -> AssociationError:
        if self._killed or self.woken:
            return AssociationAborted("the association was ended on our side", peer=self.peer)
        if error is None or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return ConnectionLost("the peer closed the connection", peer=self.peer)
        if isinstance(error, ssl.SSLError):
            return AssociationAborted(f"TLS failed ({error.reason or 'unknown reason'})", peer=self.peer)
        return ConnectionLost(f"the connection was lost ({error.strerror or type(error).__name__})", peer=self.peer)


def _handshake_reason(error: OSError | ValueError) -> str:
    return handshake_failure(error) if isinstance(error, OSError) else "the server name to check is no name"
