"""Stock pynetdicom as a peer leaves a socket open where the other side went away in the middle, until it is collected.

Which test that would be blamed on is chance. So its connections are remembered here and closed when their test ends: a
``ResourceWarning`` about a socket then always speaks of one of ours, and fails the test that leaks it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from tests.support.waiting import PATIENCE_S

_opened: list[AssociationSocket] = []
_init = AssociationSocket.__init__


def _remembering(self: AssociationSocket, *arguments: Any, **keywords: Any) -> None:
    _opened.append(self)
    _init(self, *arguments, **keywords)


AssociationSocket.__init__ = _remembering


class _Parking(threading.Event):
    """Where an association's reactor waits; only `let_go` ends that."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Keep the reactor waiting, whatever pynetdicom says."""

    def let_go(self) -> None:
        super().set()


@contextmanager
def only_requesting(association: Association) -> Iterator[None]:
    """Have the reactor of an association on which we only send wait meanwhile.

    pynetdicom pauses it for each request, but may be too late: then it takes the response, and the request waits in vain.
    """
    parking = _Parking()
    association._reactor_checkpoint = parking
    assert parking.reached.wait(PATIENCE_S), "the association's reactor does not run"
    try:
        yield
    finally:
        parking.let_go()


def close_connections() -> None:
    """Close what stock pynetdicom left open; what an association still works on is looked at again the next time."""
    at_work = [connection for connection in _opened if connection.assoc.is_alive()]
    for connection in _opened:
        if connection not in at_work and connection.socket is not None:
            connection.socket.close()
    _opened[:] = at_work
