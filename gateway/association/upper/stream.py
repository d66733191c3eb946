"""A connection with deadlines: a TCP socket, plain or TLS, on which every wait ends.

Blocking and without polling: the kernel times each wait (SO_RCVTIMEO, SO_SNDTIMEO) and a monotonic deadline spans several of
them, so that a peer which trickles bytes holds nothing for longer than one that sends none. Errors of sockets and of TLS
become those of `gateway.core.errors` here and nowhere else. One thread at a time sends and receives; `kill` and `wake` may come
from any.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import struct
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from gateway.association.upper.records import RecordLayer
from gateway.core.errors import AssociationAborted, AssociationError, ConnectionLost, PeerTimeout, TlsFailed
from gateway.security.tls import certificate_expired, certificate_names, handshake_failure

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_LINGER_BYTES = 4 * 1024 * 1024
_SEAL_BYTES = 256 * 1024
_TIMEVAL = struct.Struct("@ll")


class Stream:
    """An open connection to `peer` (a name for messages). It owns the socket from the start, also when making it fails."""

    def __init__(self, sock: socket.socket, *, peer: str, send_s: float = 30.0) -> None:
        self.peer = peer
        self.woken = False
        self._socket = sock
        self._send_s = send_s
        self._receive_s = 0.0
        self._lock = threading.Lock()
        self._killed = False
        self._records: RecordLayer | None = None
        self._cut = False
        self._ended = False
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

    def secure(
        self,
        context: ssl.SSLContext,
        *,
        deadline: float,
        server_side: bool,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Do the TLS handshake, all of it before `deadline` (monotonic seconds), whatever the peer trickles.

        `session` is an earlier one to be resumed where the peer agrees. In a resumed session no certificates are exchanged:
        the peer's is the one that was checked when the session began, and only its dates are checked again.

        Raises:
            TlsFailed: no TLS session; the message says why. After `kill`, AssociationAborted.
            PeerTimeout: the handshake did not end in time.
        """
        try:
            records = RecordLayer(context, server_side=server_side, server_name=server_name, session=session)
            self._time(socket.SO_SNDTIMEO, deadline - time.monotonic())
            try:
                self._shake_hands(records, deadline)
            except ssl.SSLError:
                self._say(records.outgoing())
                raise
        except (OSError, ValueError) as error:
            if self._killed:
                raise self._lost(None) from error
            failure = PeerTimeout if isinstance(error, TimeoutError) else TlsFailed
            raise failure(_handshake_reason(error), peer=self.peer) from error
        if records.resumed and certificate_expired(records.certificate, datetime.now(UTC)):
            raise TlsFailed("the certificate of the session that the peer resumes has expired", peer=self.peer)
        self._records = records
        self._time(socket.SO_SNDTIMEO, self._send_s)

    def _shake_hands(self, records: RecordLayer, deadline: float) -> None:
        while True:
            complete = records.handshake()
            self._push(records.outgoing(), deadline)
            if complete:
                return
            if not self._in_time(deadline):
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                records.took(self._socket.recv_into(records.room))

    @property
    def tls(self) -> bool:
        """Whether what is sent and received is encrypted."""
        return self._records is not None

    @property
    def resumed(self) -> bool:
        """Whether the TLS session is an earlier one that goes on."""
        return self._records is not None and self._records.resumed

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session for a later connection to resume; a peer gives it with its first bytes, if at all."""
        return None if self._records is None else self._records.session

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate in DER; None where it showed none."""
        return None if self._records is None else self._records.certificate

    def certificate_names(self) -> tuple[str, ...] | None:
        """Return the names in the peer's certificate, empty where it showed none or an unreadable one; None without TLS."""
        if self._records is None:
            return None
        try:
            return certificate_names(self.certificate or b"")
        except ValueError:
            return ()

    def receive_into(self, view: memoryview, deadline: float) -> int:
        """Wait for bytes and put those that are there into `view`; return how many, at least one.

        Raises:
            PeerTimeout: none came before `deadline` (monotonic seconds).
            AssociationAborted: the connection was closed or reset, or `kill` or `wake` was called.
        """
        records = self._records
        if records is None:
            return self._take(view, deadline)
        while not (count := self._decrypt(records, view)):
            # OpenSSL would wait for the rest of a record as long as one byte of it comes in time; here each wait ends.
            records.took(self._take(records.room, deadline))
        return count

    def _decrypt(self, records: RecordLayer, view: memoryview) -> int:
        try:
            count = records.read_into(view)
        except ssl.SSLError as error:
            self._say(records.outgoing())
            raise self._lost(error) from error
        if answer := records.outgoing():
            self._send_wire(answer, time.monotonic() + self._send_s)
        return count

    def _take(self, view: memoryview, deadline: float) -> int:
        """Wait for bytes on the wire, like `receive_into`."""
        while True:
            if not self._in_time(deadline):
                raise PeerTimeout("the peer sent nothing more in time", peer=self.peer)
            try:
                count = self._socket.recv_into(view)
            except (BlockingIOError, TimeoutError):
                continue
            except OSError as error:
                raise self._lost(error) from error
            if not count:
                raise self._lost(None)
            self.hasten()
            return count

    def _in_time(self, deadline: float) -> bool:
        """Have the kernel end the next wait for bytes about then; False where `deadline` is over."""
        remaining = deadline - time.monotonic()
        if remaining > 0 and (self._receive_s > 1.25 * remaining + 0.05 or self._receive_s < remaining / 8):
            self._receive_s = remaining
            self._time(socket.SO_RCVTIMEO, remaining)
        return remaining > 0

    def send(self, data: memoryview | bytes | bytearray) -> None:
        """Send all of `data`, a stretch of a message: a peer that reads a byte now and then is not waited for.

        Raises:
            PeerTimeout: the peer did not take `data` within the time given at the start.
            AssociationAborted: the connection was closed or reset, or `kill` was called.
        """
        view = memoryview(data)
        deadline = time.monotonic() + self._send_s
        if self._records is None:
            self._send_wire(view, deadline)
            return
        while view:
            self._send_wire(self._records.write(view[:_SEAL_BYTES]), deadline)
            view = view[_SEAL_BYTES:]

    def _send_wire(self, wire: memoryview | bytes, deadline: float) -> None:
        try:
            self._push(wire, deadline)
        except TimeoutError as error:
            raise PeerTimeout(f"the peer did not read what was sent within {self._send_s:g} s", peer=self.peer) from error
        except OSError as error:
            raise self._lost(error) from error

    def _push(self, wire: memoryview | bytes, deadline: float) -> None:
        """Send all of `wire`. Raises OSError, a TimeoutError where it takes too long."""
        view = memoryview(wire)
        self._cut = True
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError as error:
                raise TimeoutError from error
            if view and time.monotonic() >= deadline:
                raise TimeoutError
        self._cut = False

    def _say(self, alert: bytes) -> None:
        """Send a TLS alert where the connection takes it at once; it helps the peer, and nobody waits for it."""
        if alert and not self._cut:
            with contextlib.suppress(OSError):
                self._socket.send(alert, socket.MSG_DONTWAIT)

    def pause(self, seconds: float) -> None:
        """Leave the connection alone for `seconds`; a reset ends that early, and who sends or receives next is told.

        Raises:
            AssociationAborted: `kill` was called.
        """
        # Without an event to wait for, the kernel still tells of a connection that is down both ways, as after `kill`.
        poll = select.poll()
        poll.register(self._socket, 0)
        poll.poll(math.ceil(seconds * 1000))
        if self._killed:
            raise self._lost(None)

    def stirs(self) -> bool:
        """Tell at once whether something came, be it the end of the connection. Under TLS it may turn out to be nothing to read."""
        if self._socket.fileno() < 0 or (self._records is not None and self._records.stirs()):
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def hasten(self) -> None:
        """Have what comes next acknowledged at once, for the wait after sending: the kernel took the ACKs back to delayed ones."""
        if _QUICKACK is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                # It is closed; who receives or sends next is told.
                return

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._socket.fileno()

    def kill(self) -> None:
        """End the connection: who waits on it gets AssociationAborted at once. From any thread, any number of times."""
        with self._lock:
            self._killed = True
            self._shut(socket.SHUT_RDWR)

    def wake(self) -> None:
        """End the receiving half: who waits for bytes gets AssociationAborted. Sending still works. From any thread."""
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
            self._end_session()
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
                count = self._socket.recv_into(scrap)
                if not count:
                    break
                dropped += count

    def close(self) -> None:
        """Close the connection. Any number of times."""
        self._end_session()
        with self._lock:
            self._socket.close()

    def _end_session(self) -> None:
        """Tell the peer that nothing was cut off (RFC 8446 §6.1), where nothing was."""
        if self._records is not None and not (self._ended or self._killed):
            self._ended = True
            self._say(self._records.farewell())

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def _time(self, option: int, seconds: float) -> None:
        """Let the kernel end waits for receiving (SO_RCVTIMEO) or sending (SO_SNDTIMEO) after `seconds`."""
        whole = int(max(seconds, 0))
        # A timeout of zero would mean none.
        micros = max(int((seconds - whole) * 1_000_000), 1000)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(whole, micros))
        except OSError as error:
            raise self._lost(error) from error

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
