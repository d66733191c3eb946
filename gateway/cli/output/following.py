"""Long operations as the meter shows them, message by message; apart from the commands, because no help needs the messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar

from gateway.cli.output import render
from gateway.cli.output.progress import Amount, Meter, meter, total, words
from gateway.control.events import (
    COMPARE,
    EXPORT,
    MIGRATE,
    PULL,
    SEND,
    Comparing,
    ComparisonWaits,
    Delivering,
    FilesRead,
    FilesWritten,
    Listing,
    Migrating,
)
from gateway.control.wire import Document, Message, Request, Summary, encode
from gateway.core.errors import GatewayLost
from gateway.retrieve.events import Progress, Repairing, StudyEnded, StudyPlanned, Waiting

if TYPE_CHECKING:
    from gateway.control.client import Client


class Follower(ABC):
    """Shows the messages of a long operation."""

    messages: ClassVar[tuple[type[Message], ...]]
    """The messages that its stream may have."""

    def __init__(self, shown: Meter) -> None:
        self._shown = shown

    @abstractmethod
    def tell(self, message: Message) -> None:
        """Show one message."""


def follow(client: Client, route: str, command: Request, follower: type[Follower], *, quiet: bool) -> Document:
    """Ask for `command`, show each message, and return the last one, the summary, as ``--json`` prints it.

    Nothing is shown where `quiet`.

    Raises:
        GatewayLost: the messages ended without a summary.

    """
    with meter(quiet) as shown, client.stream(route, command, follower.messages) as messages:
        progress = follower(shown)
        for message in messages:
            if isinstance(message, Summary):
                return encode(message)
            progress.tell(message)
    raise GatewayLost("the gateway ended before the work was done; give the same command again to carry on")


class PullProgress(Follower):
    """Adds up the messages of a pull for the meter."""

    messages = PULL

    def __init__(self, shown: Meter) -> None:
        super().__init__(shown)
        self._studies: dict[int, Amount] = {}
        self._ended = 0

    def tell(self, message: Message) -> None:
        """Show one message."""
        note = ""
        match message:
            case StudyPlanned():
                self._studies[message.retrieval_id] = Amount(message.present, message.expected)
            case Progress():
                self._studies[message.retrieval_id] = Amount(message.received, message.expected, message.bytes)
            case StudyEnded():
                self._ended += 1
            case Repairing():
                note = f"repairing: {message.missing} missing ({message.step})"
            case Waiting():
                note = f"waiting {render.duration(message.seconds)}: {message.reason}"
            case Delivering():
                show_delivering(self._shown, message)
                return
        ended = f"{render.plural(self._ended, 'study', 'studies')} done" if self._ended else ""
        self._shown.show("receiving", total(self._studies.values()), note or ended)


class SendProgress(Follower):
    """Shows the messages of a send."""

    messages = SEND

    def tell(self, message: Message) -> None:
        """Show one message."""
        match message:
            case Delivering():
                show_delivering(self._shown, message)
            case FilesRead(counts=counts):
                amount = Amount(counts["queued"] + counts["settled"] + counts["held"], None, message.size_bytes)
                self._shown.show("reading", amount, f"{counts['skipped'] + counts['failed']} files not taken")


class MigrationProgress(Follower):
    """Shows the messages of a migration."""

    messages = MIGRATE

    def tell(self, message: Message) -> None:
        """Show one message."""
        match message:
            case Delivering():
                show_delivering(self._shown, message)
            case Listing(portions=portions):
                self._shown.show("listing", Amount(), f"{portions.listed}/{portions.of} listed, {message.studies} studies")
            case Migrating(studies=studies):
                self._shown.show("migrating", Amount(studies["moved"], studies["instances"] or None), words(asdict(message)))


class CompareProgress(Follower):
    """Shows the messages of a comparison."""

    messages = COMPARE

    def __init__(self, shown: Meter) -> None:
        super().__init__(shown)
        self._done = Amount()

    def tell(self, message: Message) -> None:
        """Show one message."""
        match message:
            case Delivering():
                show_delivering(self._shown, message)
            case ComparisonWaits():
                self._shown.show("comparing", self._done, f"waiting: {message.reason}")
            case Comparing():
                self._done = Amount(message.instances, None)
                note = f"{render.plural(message.studies, 'study', 'studies')}, {message.different} differences"
                self._shown.show("comparing", self._done, note)


class ExportProgress(Follower):
    """Shows the messages of an export."""

    messages = EXPORT

    def tell(self, message: Message) -> None:
        """Show one message."""
        if isinstance(message, FilesWritten):
            self._shown.show("exporting", Amount(instances=message.instances, size_bytes=message.size_bytes))


def show_delivering(shown: Meter, message: Delivering) -> None:
    """Show how many deliveries are through, and what the others are doing."""
    counts = [states for of in message.destinations.values() for states in of["states"].items()]
    everything = sum(count for _, count in counts)
    waiting = [f"{name}: {render.states(of['states'])}" for name, of in message.destinations.items()]
    shown.show("delivering", Amount(everything - message.working, everything), "; ".join(waiting))
