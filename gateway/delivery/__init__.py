"""Delivery: each instance to each of its destinations, on its own.

Contract: at least once, and known. A delivery leaves `sending` by an outcome that the ledger recorded durably; one whose
outcome nobody knows (a broken association, a crash) is sent again after asking, where that can be asked, whether it is there
already. A destination that is down costs its instances time, never attempts, and costs other destinations nothing.

`destination` is the protocol of `adapters`, one a kind, and `build` makes them of settings. `dispatcher` has all destinations
work, each in a lane of its own (`lanes`: its threads, its circuit, and what a worker does next); `policy` decides without I/O what
follows from an outcome. `forms` says in which transfer syntax an instance goes, and `transcoding` makes the copies for it.
"""

from typing import TYPE_CHECKING

from gateway.core.exports import lazily

if TYPE_CHECKING:
    from gateway.delivery.build import destinations
    from gateway.delivery.destination import Destination, Outcome, OutcomeKind, Session
    from gateway.delivery.dispatcher import Dispatcher
    from gateway.delivery.lanes.circuit import CircuitState, CircuitView
else:
    __getattr__ = lazily(
        __name__,
        {
            "build": ("destinations",),
            "lanes.circuit": (
                "CircuitState",
                "CircuitView",
            ),
            "destination": (
                "Destination",
                "Outcome",
                "OutcomeKind",
                "Session",
            ),
            "dispatcher": ("Dispatcher",),
        },
    )

__all__ = ["CircuitState", "CircuitView", "Destination", "Dispatcher", "Outcome", "OutcomeKind", "Session", "destinations"]
