"""The contract of every destination adapter: a batch of consignments in, one outcome an instance out.

An adapter knows how to bring bytes to its destination and nothing of queues, retries or the ledger. A fault of one
instance is an outcome; a fault of the destination or of the way to it is raised, and says nothing about the instances
that were not reported: they were not sent. Sessions are synchronous: one thread at a time uses a session, `stop` and `kill`
come from any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.association.dimse.requests import ByteSource
from gateway.config.settings import RetryTable
from gateway.core.domain import Consignment, Content, Proof, Status
from gateway.core.schedule import Schedule
from gateway.core.throttle import Throttle


class OutcomeKind(StrEnum):
    """The ways in which one attempt to deliver one instance can end."""

    ANSWERED = "answered"
    """The destination answered with `Outcome.status`, a status of its kind, of which `Destination.judge` tells the class."""

    STORED = "stored"
    """The destination took it; there is no status."""

    FOUND = "found"
    """Not sent: the destination was asked and has it already."""

    REFUSED = "refused"
    """The destination takes no such SOP class in this transfer syntax; nothing was sent."""

    UNREADABLE = "unreadable"
    """Our own bytes are not there or not what they were; nothing complete was sent."""

    TRANSCODE = "transcode"
    """Not sent: it has to be brought into the transfer syntax `Outcome.sent_as` first."""

    HINDERED = "hindered"
    """Our own bytes could not be read this time; nothing complete was sent."""

    UNKNOWN = "unknown"
    """No answer: the destination may or may not have it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt at one delivery. `reason` is for people and holds no patient data.

    `found` is what the destination said when asked whether it has the instance, None where it was not or could not be asked;
    `proof` is what the adapter itself made sure of. `sent_as` is the transfer syntax UID that it went out in, or is to be brought
    into, where that was chosen for it. `was_there` says whether the destination listed it before it was sent for the first time,
    None where that is not known.
    """

    delivery_id: int
    kind: OutcomeKind
    status: int | None = None
    reason: str = ""
    found: bool | None = None
    proof: Proof | None = None
    sent_as: str | None = None
    was_there: bool | None = None


DAMAGED = "bytes damaged: their digest is not the one they came with"
"""The reason of an `UNREADABLE` outcome whose bytes are there."""

Judge = Callable[[int], Status]
"""Tells what a status of a destination means. Pure, for any number: one that it never answers is judged by its class."""

Report = Callable[[Outcome], bool]
"""Takes one outcome, on the session's thread, as soon as it is known, and tells whether the next instance is to be sent now."""


class OpenBytes(ByteSource, Protocol):
    """A data set open for reading, and the file that it is in."""

    @property
    def start(self) -> int:
        """The position where the bytes before the data set begin: its own Part 10 file's head, if it has one."""


class ContentStore(Protocol):
    """The store of the bytes; `gateway.spool.Spool` is one."""

    def open(self, content: Content) -> AbstractContextManager[OpenBytes]:
        """Open the data set that `content` names.

        Raises:
            SpoolMissing: it is not there, or is not what it was.
            SpoolIOError: it cannot be read now.
        """


class Session(Protocol):
    """One way into a destination, kept open between batches. Nothing is connected before the first `deliver`."""

    def deliver(self, batch: Sequence[Consignment], report: Report) -> None:
        """Bring the instances of `batch` to the destination and report each as it is done.

        Returns early, without reporting the rest, once `stop` was called or `report` returned False. After an error the session may
        be used again.

        Raises:
            AssociationError, DestinationUnavailable: the destination or the way to it fails; the rest was not sent.
        """

    def stop(self) -> None:
        """Finish the instance at hand and begin no other. From any thread; for good."""

    def kill(self) -> None:
        """Break off at once: the instance at hand ends as unknown. From any thread; for good. Never raises."""

    def close(self) -> None:
        """Leave the destination in order; a later `deliver` connects again. Never raises."""


class Destination(Protocol):
    """A destination of instances: `[destinations.NAME]` made able to deliver."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def workers(self) -> int:
        """The number of sessions that work at a time."""

    @property
    def idle_close_s(self) -> float:
        """A session without work for this long is closed, in seconds."""

    @property
    def retry(self) -> RetryTable:
        """The number of attempts and the pauses between them."""

    @property
    def hours(self) -> Schedule | None:
        """The hours in which it may be delivered to; None is always."""

    @property
    def throttle(self) -> Throttle | None:
        """The limit on the rate of sending to it, all sessions together; None sets no limit."""

    @property
    def instant_proof(self) -> Proof | None:
        """The proof with which a delivered instance is verified at once; None where a proof is asked for later."""

    def judge(self, status: int) -> Status:
        """Return what a status that it answered means; see `Judge`."""

    def open(self) -> Session:
        """Return a new session, not yet connected."""

    def tidy(self) -> None:
        """Remove what earlier runs left at the destination. On a worker's thread, before its first delivery. Never raises."""

    def forget_refusals(self) -> None:
        """Ask anew what the destination refused to take, because a person wants it tried. From any thread."""
