"""The remarks of a verdict besides its kind: why instances are missing, and what was odd on the way. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gateway.association.dimse.statuses import MOVE_DESTINATION_UNKNOWN
from gateway.core.errors import PeerTimeout, PeerUnreachable
from gateway.retrieve.arrivals.correlate import Watch
from gateway.retrieve.operations.method import Method
from gateway.retrieve.recovery import AcceptanceOrder, End, Step
from gateway.retrieve.source.call import Moved
from gateway.retrieve.verdict.tally import instances


def trouble(moved: Moved | None, watch: Watch, registration: Callable[[], str]) -> list[str]:
    """Return what went wrong with the last C-MOVE or C-GET, worst first; `registration` is what a source has to know of us."""
    if moved is None:
        return []
    if moved.method is Method.GET:
        return [f"C-GET: {moved.words()}" if moved.words() else ""]
    if moved.last is not None and moved.last.status == MOVE_DESTINATION_UNKNOWN:
        return [f"the source does not know us as a move destination (A801): register {registration()} in it"]
    if not (watch.arrivals or moved.end is End.REFUSED):
        return _nothing_came(moved, watch, registration)
    return [moved.words()]


def _nothing_came(moved: Moved, watch: Watch, registration: Callable[[], str]) -> list[str]:
    if watch.turned_away:
        who = f"a caller that is no source of ours was refused meanwhile ({watch.turned_away})"
        return [moved.words(), f"{who}: if it is this source, enter it so in [sources]"]
    if moved.end is not End.ANSWERED:
        return [moved.words()]
    return [moved.words(), f"nothing came: it may not know us as a move destination ({registration()}) or not reach us"]


def conflicts(count: int) -> list[str]:
    """Return what to say of `count` instances that contradicted what was here under their UIDs."""
    if not count:
        return []
    return [f"{instances(count)} came with other content than was here under the same SOP Instance UID: the newer is delivered"]


def only_this_one(moved: Moved) -> bool:
    """Tell whether what broke a C-MOVE of a single instance may have been that instance."""
    return moved.end is End.BROKEN and not isinstance(moved.error, PeerUnreachable | PeerTimeout)


def name(step: Step, usual: AcceptanceOrder) -> str:
    """Return what to call `step` to those who watch."""
    return str(step.way) if step.order == usual else f"other-order-{step.way}"
