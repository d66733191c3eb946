"""A long operation as the command sees it that asked for it: each event is shown, the last one is its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from gateway.cli.output import render
from gateway.cli.output.progress import Amount, Meter, meter
from gateway.core.errors import GatewayLost

if TYPE_CHECKING:
    from gateway.control.client import Client
    from gateway.control.wire import Request

Document = Mapping[str, Any]


class Follower(Protocol):
    """Shows the events of a long operation."""

    def tell(self, event: Document) -> None:
        """Show one event."""


def follow(client: Client, route: str, command: Request, follower: Callable[[Meter], Follower], *, quiet: bool) -> Document:
    """Ask for `command`, show each event, and return the last one, the summary; nothing is shown where `quiet`.

    Raises:
        GatewayLost: the events ended without one.

    """
    with meter(quiet) as shown, client.stream(route, command) as events:
        progress = follower(shown)
        for event in events:
            if event["event"] == "summary":
                return event
            progress.tell(event)
    raise GatewayLost("the gateway ended before the work was done; give the same command again to carry on")


def show_delivering(shown: Meter, event: Document) -> None:
    """Show how many deliveries are through, and what the others are doing."""
    counts = [states for of in event["destinations"].values() for states in of["states"].items()]
    everything = sum(count for _, count in counts)
    waiting = [f"{name}: {render.states(of['states'])}" for name, of in event["destinations"].items()]
    shown.show("delivering", Amount(everything - event["working"], everything), "; ".join(waiting))
