"""The acceptor of associations, for whatever services it is given (PS3.8 §9.2, PS3.4).

A thread for each listening socket does nothing but accept; everything else, the TLS handshake first, happens on a thread of
the connection's own. Waiting is done by the kernel: an idle association costs nothing but its thread.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from gateway.association.dimse.message import ReleaseRequested
from gateway.association.dimse.services import (
    Admission,
    Admitted,
    AssociationInfo,
    CommitmentService,
    Limits,
    ListenerSpec,
    Reception,
    StorageService,
    StoreRequest,
)
from gateway.association.dimse.storing import origin
from gateway.association.scp.connections import Connection, Registry
from gateway.association.scp.handshake import Established, establish
from gateway.association.scp.service_classes import Service, Services
from gateway.association.scp.serving import Draining, Server
from gateway.association.upper.pdu import SERVICE_PROVIDER, SERVICE_USER, encode_abort, encode_reject, encode_release_response
from gateway.association.upper.stream import Stream
from gateway.core.errors import AssociationAborted, AssociationError, AssociationRejected, PeerTimeout, ProtocolError
from gateway.core.log import get_logger

__all__ = [
    "Acceptor",
    "Admission",
    "Admitted",
    "AssociationInfo",
    "CannotListen",
    "CommitmentService",
    "Limits",
    "ListenerSpec",
    "Reception",
    "StorageService",
    "StoreRequest",
]

BACKLOG = 128
FAREWELL_S = 2.0
"""The longest time that a peer may take to read our last PDU and close (PS3.8 §9.1.5, ARTIM)."""

_PAUSE_S = 0.2
_JOIN_S = 30.0

log = get_logger()


class CannotListen(OSError):
    """A port that cannot be listened on."""

    def __init__(self, spec: ListenerSpec, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.host = spec.host
        self.port = spec.port


class Acceptor:
    """Listens, and serves each association on a thread of its own. `start` once, `close` in the end; both from any thread."""

    def __init__(
        self,
        listeners: Sequence[ListenerSpec],
        *,
        admission: Admission,
        services: Iterable[Service],
        limits: Limits | None = None,
    ) -> None:
        self._specs = tuple(listeners)
        self._admission = admission
        self._services = Services(services)
        self._limits = limits or Limits()
        self._registry = Registry(self._limits)
        self._sockets: list[socket.socket] = []
        self._endpoints: tuple[tuple[str, int], ...] = ()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Bind and listen. Raises CannotListen with what could not be bound, in which case nothing listens."""
        try:
            for spec in self._specs:
                self._sockets.append(_listen(spec))
        except OSError:
            self._close_sockets()
            raise
        self._endpoints = tuple(listener.getsockname()[:2] for listener in self._sockets)
        for listener, spec, (host, port) in zip(self._sockets, self._specs, self._endpoints, strict=True):
            log.info("listening", host=host, port=port, tls=spec.tls is not None)
            self._spawn(f"accept-{port}", self._accept, listener, spec.tls)

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """The addresses on which it listens, (address, port) in the order of the listeners."""
        return self._endpoints

    @property
    def association_count(self) -> int:
        """The number of associations that are open now."""
        return self._registry.associations

    def stop_accepting(self) -> None:
        """Close the listening sockets; open associations go on."""
        self._stopped.set()
        self._close_sockets()

    def drain(self, timeout_s: float) -> bool:
        """Take no new associations, let each finish its message within `timeout_s`, abort the rest; tell whether none was."""
        self.stop_accepting()
        return self._registry.drain(timeout_s)

    def close(self) -> None:
        """Stop listening, abort what is open, and wait for every thread."""
        self.stop_accepting()
        self._registry.kill_all()
        deadline = time.monotonic() + _JOIN_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            log.warning("associations_still_busy", count=sum(thread.is_alive() for thread in threads))

    def _close_sockets(self) -> None:
        for listener in self._sockets:
            try:
                # Linux wakes the thread in accept by this; closing alone would leave it there.
                listener.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EBADF, errno.EINVAL):
                    log.warning("listener_not_shut_down", error=error.strerror)
            listener.close()

    def _spawn(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        """Start a thread that `close` waits for. Raises RuntimeError when the system has no more."""

        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            raise

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections until the listener is closed."""
        while not self._stopped.is_set():
            try:
                accepted, address = listener.accept()
            except OSError as error:
                if self._stopped.is_set():
                    return
                if error.errno != errno.ECONNABORTED:
                    # Out of descriptors or memory: what is open has to end first.
                    log.error("accept_failed", error=error.strerror)
                    self._stopped.wait(_PAUSE_S)
                continue
            self._take(accepted, _plain(address[0]), address[1], tls)

    def _take(self, accepted: socket.socket, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Give a new connection a thread of its own."""
        try:
            stream = Stream(accepted, peer=f"{address}:{port}", send_s=self._limits.send_timeout_s)
        except AssociationAborted:
            return
        connection = self._registry.add(stream, address)
        if connection is None:
            stream.close()
            return
        try:
            self._spawn(f"association-{connection.number}", self._run, connection, tls)
        except RuntimeError as error:
            log.error("no_thread_for_association", error=str(error))
            self._registry.remove(connection)
            stream.close()

    def _run(self, connection: Connection, tls: ssl.SSLContext | None) -> None:
        """Serve `connection` from its first byte to its last. The root of its thread."""
        try:
            self._associate(connection, tls)
        except Exception as error:  # noqa: BLE001 - the root of the thread
            log.error("association_failed", peer=connection.stream.peer, error=type(error).__name__, at=origin(error))
        finally:
            self._registry.remove(connection)
            connection.stream.close()

    def _associate(self, connection: Connection, tls: ssl.SSLContext | None) -> None:
        try:
            established = establish(
                connection,
                tls,
                admission=self._admission,
                registry=self._registry,
                limits=self._limits,
                classes=self._services.classes,
            )
        except AssociationRejected as rejected:
            log.warning("association_rejected", peer=connection.stream.peer, reason=str(rejected))
            self._end(connection, encode_reject(rejected.result, rejected.source, rejected.reason))
        except AssociationError as error:
            # A caller that connects and goes at once, a health check for one, is not worth a line.
            level = log.debug if type(error) is AssociationAborted else log.warning
            level("no_association", error=type(error).__name__, reason=str(error))
            # Nothing can be said within a TLS handshake that failed.
            self._end(connection, _last_words(error) if tls is None or connection.stream.tls else b"")
        else:
            self._converse(connection, established)

    def _converse(self, connection: Connection, established: Established) -> None:
        """Serve the messages of an association, then end it as it wants to end."""
        info = established.info
        bound = log.bind(association=info.id)
        bound.debug("association_accepted", calling_ae=info.calling_ae, address=info.address, source=info.source)
        server = Server(connection, established, registry=self._registry, services=self._services, limits=self._limits)
        begun = time.monotonic()
        outcome, words = "released", encode_release_response()
        try:
            server.run()
        except AssociationError as error:
            outcome, words = "stopped" if connection.stream.woken else _OUTCOMES.get(type(error), "broken"), _last_words(error)
            bound.info("association_broke", error=type(error).__name__, reason=str(error))
        tally = server.tally
        bound.info(
            "association_ended",
            outcome=outcome,
            stored=tally.stored,
            refused=tally.refused,
            bytes=tally.bytes,
            seconds=round(time.monotonic() - begun, 3),
        )
        self._end(connection, words or (encode_abort() if connection.stream.woken else b""))

    def _end(self, connection: Connection, words: bytes) -> None:
        """Say the last words, if any, and give the peer a moment to read them; the association is over already."""
        self._registry.end(connection)
        if words:
            connection.stream.farewell(words, FAREWELL_S)


_OUTCOMES: dict[type[AssociationError], str] = {
    Draining: "stopped",
    PeerTimeout: "timed out",
    ProtocolError: "aborted",
    ReleaseRequested: "released early",
}


def _last_words(error: AssociationError) -> bytes:
    """Return the PDU that a connection ends with after `error`; none where the peer is gone (PS3.8 §9.2.3, AA-1, AA-8)."""
    match error:
        case ProtocolError():
            return encode_abort(SERVICE_PROVIDER, error.reason)
        case PeerTimeout():
            return encode_abort(SERVICE_PROVIDER)
        case ReleaseRequested():
            return encode_release_response()
        case Draining():
            return encode_abort(SERVICE_USER)
        case _:
            return b""


def _listen(spec: ListenerSpec) -> socket.socket:
    """Return a listening socket. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(spec.host or None, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise CannotListen(spec, error) from error


def _plain(address: str) -> str:
    """Return an address as it is written in configurations: an IPv4 one on an IPv6 socket as IPv4, without a zone."""
    return address.removeprefix("::ffff:").partition("%")[0]
