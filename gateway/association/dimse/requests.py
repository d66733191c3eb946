"""The plain data that a requestor takes and returns: peer, deadlines, bytes to send, answers. Pure but for Message IDs."""

from __future__ import annotations

import itertools
import secrets
import ssl
from dataclasses import dataclass, field
from typing import Protocol

from gateway.association.dimse.command import CommandSet
from gateway.association.dimse.identifier import decode_identifier, uids
from gateway.association.dimse.statuses import is_pending
from gateway.core.errors import ProtocolError
from gateway.core.throttle import Throttle

MAX_MESSAGE_ID = 0xFFFF


@dataclass(frozen=True, slots=True)
class RemoteAE:
    """A peer to associate with. With `tls` its certificate must hold `server_name`, or `host` where that is left out.

    Instances go to it no faster than `sending` lets them, and what it sends is taken no faster than `receiving` does.
    """

    ae_title: str
    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)
    server_name: str | None = None
    sending: Throttle | None = field(default=None, compare=False, repr=False)
    receiving: Throttle | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The longest times that each wait may last, in seconds.

    `connect_s` covers the name, TCP and TLS; `associate_s` the answer to A-ASSOCIATE-RQ; `response_s` each response to a request;
    `query_s` all responses to one C-FIND together; `send_s` each stretch in which the peer reads nothing of what we send;
    `release_s` the answer to A-RELEASE-RQ.
    """

    connect_s: float = 10.0
    associate_s: float = 30.0
    response_s: float = 60.0
    query_s: float = 600.0
    send_s: float = 30.0
    release_s: float = 5.0


DEFAULT_DEADLINES = Deadlines()


class ByteSource(Protocol):
    """An encoded data set: `length` bytes from `offset` of an open file."""

    @property
    def offset(self) -> int:
        """The position where the data set begins, in bytes from the start of the file."""

    @property
    def length(self) -> int:
        """The length of the data set, in bytes."""

    def fileno(self) -> int:
        """Return the file's descriptor; it is read by position and stays where it is."""


@dataclass(frozen=True, slots=True)
class StoreResponse:
    """The peer's answer to one C-STORE (PS3.7 §9.1.1)."""

    status: int
    message_id: int


@dataclass(frozen=True, slots=True)
class SubOperations:
    """One C-MOVE or C-GET response (PS3.7 §9.1.3, §9.1.4): the peer's own counts, which prove nothing; None where it gave none."""

    status: int
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether no further response follows."""
        return not is_pending(self.status)


def sub_operations(command: CommandSet, data: bytes | None, transfer_syntax: str) -> SubOperations:
    """Return what a C-MOVE or C-GET response says; a failed list that cannot be read is no reason to lose the rest."""
    return SubOperations(
        status=command["Status"],
        remaining=command.get("NumberOfRemainingSuboperations"),
        completed=command.get("NumberOfCompletedSuboperations"),
        failed=command.get("NumberOfFailedSuboperations"),
        warning=command.get("NumberOfWarningSuboperations"),
        failed_uids=_failed_uids(data, transfer_syntax) if data else (),
    )


def _failed_uids(data: bytes, transfer_syntax: str) -> tuple[str, ...]:
    try:
        return uids(decode_identifier(data, transfer_syntax), "FailedSOPInstanceUIDList")
    except ProtocolError:
        return ()


# Anywhere: a source may still send for a C-MOVE of an earlier process, under its Message ID.
_message_ids = itertools.count(secrets.randbelow(MAX_MESSAGE_ID))


def next_message_id() -> int:
    """Return a Message ID from 1 to 65535 that this process did not use for its last 65,534 calls. Thread-safe.

    C-MOVEs take theirs here, since their sub-operations come back under it on other associations; and C-GETs, so that what
    comes for either is counted in the same way.
    """
    return next(_message_ids) % MAX_MESSAGE_ID + 1
