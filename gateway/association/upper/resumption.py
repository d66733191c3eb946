"""TLS sessions that a requestor resumes, so that a reconnect costs no full handshake. In memory only; from any thread.

A session belongs to the `SSLContext` that it came from, so to our certificate and CAs, and to the peer's name and address.
Each is used once (RFC 8446 §C.4) and comes back from a connection on which the peer has answered: one that failed is gone.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.association.upper.stream import Stream
from gateway.security.tls import certificate_expired

MOST_PEERS = 64
MOST_SESSIONS = 16
"""For each peer: as many associations as reconnect at once. The oldest go first, of peers the ones least used."""


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """The peer of a TLS session, and our context that the session belongs to."""

    context: ssl.SSLContext
    host: str
    port: int
    server_name: str


@dataclass(frozen=True, slots=True)
class _Kept:
    session: ssl.SSLSession
    certificate: bytes | None

    def good(self) -> bool:
        """Tell whether the ticket is young enough and the certificate that it stands for still valid."""
        ends = self.session.time + min(self.session.timeout, self.session.ticket_lifetime_hint or self.session.timeout)
        return time.time() < ends and not certificate_expired(self.certificate, datetime.now(UTC))


class Sessions:
    """Sessions by peer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[TlsPeer, deque[_Kept]] = OrderedDict()

    def take(self, peer: TlsPeer) -> ssl.SSLSession | None:
        """Return a session to resume with `peer`, the latest, and forget it."""
        with self._lock:
            kept = self._kept.get(peer)
            while kept:
                latest = kept.pop()
                if latest.good():
                    return latest.session
            return None

    def keep(self, peer: TlsPeer, stream: Stream) -> None:
        """Keep the session that `peer` gave on `stream`, if it gave one."""
        session = stream.session
        if session is None:
            return
        with self._lock:
            self._kept.setdefault(peer, deque(maxlen=MOST_SESSIONS)).append(_Kept(session, stream.certificate))
            self._kept.move_to_end(peer)
            if len(self._kept) > MOST_PEERS:
                self._kept.popitem(last=False)

    def forget(self, peer: TlsPeer) -> None:
        """Forget the sessions with `peer`."""
        with self._lock:
            self._kept.pop(peer, None)
