"""The contract between the network and the services behind it: what the acceptor is given and what it tells them. Pure.

A service is called on the association's own thread and may block: the peer waits for its answer. It says no by raising
`Refusal`; any other exception is logged, answered 0110 and never reaches the peer.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.association.dimse.commitment import CommitmentReport
from gateway.core.throttle import Throttle

MAX_FRAGMENTS = 256
"""`Reception.write` gets at most this many fragments at a time: fewer than the buffers of one ``writev`` (IOV_MAX is 1024)."""


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """A socket to listen on; port 0 takes a free one. With `tls` every connection begins with a TLS handshake."""

    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits on what peers may use of us.

    `handshake_timeout_s` spans TLS and A-ASSOCIATE-RQ together, `pdu_timeout_s` one whole PDU and each wait for the next within
    a message, `idle_timeout_s` the wait for the next message, `send_timeout_s` each stretch in which the peer reads nothing.
    `max_handshakes` bounds connections that are not associations yet: the oldest of the busiest address makes room for a new one.
    """

    max_associations: int = 64
    max_handshakes: int = 64
    idle_timeout_s: float = 300.0
    pdu_timeout_s: float = 60.0
    handshake_timeout_s: float = 15.0
    send_timeout_s: float = 30.0
    max_pdu_bytes: int = 131072


@dataclass(frozen=True, slots=True)
class AssociationInfo:
    """The peer of an association; `source` is the name in ``[sources]``, None for an unknown caller.

    The AE titles are 1 to 16 printable ASCII characters. `certificate_names` are those of the TLS client certificate.
    """

    id: str
    calling_ae: str
    called_ae: str
    address: str
    certificate_names: tuple[str, ...] = ()
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 §9.3.1.1); both UIDs can be carried (`is_uid`), others are answered 0117 or 0122 before."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    move_originator_ae: str | None = None
    move_originator_message_id: int | None = None


class Reception(Protocol):
    """One instance on its way in. `commit` or `discard` is called exactly once, whatever happens, and nothing after it."""

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Take the next bytes of the data set, in order: 1 to `MAX_FRAGMENTS` fragments, made for ``os.writev``.

        The memory is reused after the call returns. When it raises, the rest of the data set is read and dropped,
        `discard` is called, and the peer is answered the status of the `Refusal`, or 0110.
        """

    def commit(self) -> int:
        """Make the whole data set durable and return the status that the peer is answered. Raises Refusal."""

    def discard(self) -> None:
        """Forget everything: the message did not end, or `write` raised. It must not raise."""


class StorageService(Protocol):
    """Takes the instances that peers store (PS3.4 §B.2)."""

    def receive(self, association: AssociationInfo, request: StoreRequest) -> Reception:
        """Begin to take one instance. Raises Refusal; its data set is then read and dropped."""


class CommitmentService(Protocol):
    """Takes the reports that peers make of what they committed to keep (PS3.4 §J.3.3)."""

    def report(self, report: CommitmentReport) -> int:
        """Take `report` and return the status that the peer is answered. Raises Refusal."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller may associate: its name in ``[sources]`` or None, and the transfer syntaxes for storage, best first.

    `associations` is how many it may have at a time, `throttle` how fast it may send; None sets no limit. `by_class` has the
    transfer syntaxes of those SOP classes that have an order of their own.
    """

    source: str | None
    transfer_syntaxes: tuple[str, ...]
    associations: int | None = None
    throttle: Throttle | None = field(default=None, compare=False)
    by_class: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Admission(Protocol):
    """Decides who may associate."""

    def admit(self, *, calling_ae: str, called_ae: str, address: str, certificate_names: tuple[str, ...] | None) -> Admitted:
        """Decide on one A-ASSOCIATE-RQ, quickly; `certificate_names` is None without TLS.

        Raises:
            AssociationRejected: with the result, source and reason that the peer is answered (PS3.8 §9.3.4).
        """
