"""Stock pynetdicom as a peer leaves a socket open where the other side went away in the middle, until it is collected.

Which test that would be blamed on is chance. So its connections are remembered here and closed when their test ends: a
``ResourceWarning`` about a socket then always speaks of one of ours, and fails the test that leaks it.
"""

from __future__ import annotations

from typing import Any

from pynetdicom.transport import AssociationSocket

_opened: list[AssociationSocket] = []
_init = AssociationSocket.__init__


def _remembering(self: AssociationSocket, *arguments: Any, **keywords: Any) -> None:
    _opened.append(self)
    _init(self, *arguments, **keywords)


AssociationSocket.__init__ = _remembering


def close_connections() -> None:
    """Close what stock pynetdicom left open; what an association still works on is looked at again the next time."""
    at_work = [connection for connection in _opened if connection.assoc.is_alive()]
    for connection in _opened:
        if connection not in at_work and connection.socket is not None:
            connection.socket.close()
    _opened[:] = at_work
