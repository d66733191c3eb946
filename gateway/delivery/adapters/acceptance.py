"""The presentation contexts that a destination accepts or refuses, remembered so that it is asked once and not by every batch.

A refusal is remembered for a day, also over a restart (`gateway.ledger.peers.learned`), so that it costs one association and not
one for each instance; a person who retries has everything asked anew. An acceptance is remembered while the process lives.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable

from gateway.core.log import get_logger

REMEMBERED_S = 86_400.0
"""The time for which a refusal counts, in seconds: destinations are configured anew now and then."""

Pair = tuple[str, str]
"""A SOP Class UID and a transfer syntax UID: what a presentation context with one transfer syntax is about (PS3.8 §7.1.1.13)."""

_log = get_logger()


class Acceptance:
    """The presentation contexts that one destination is known to accept and to refuse. Thread-safe; all its sessions share it."""

    def __init__(
        self,
        known: str | None = None,
        *,
        changed: Callable[[str], None] = lambda _known: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with `known`, what `changed` was given last, if anything; `clock` gives UTC seconds since the epoch.

        `changed` hears of the refusals, as text, whenever they have changed, and must return at once.
        """
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._accepted: frozenset[Pair] = frozenset()
        self._refused = _decoded(known)

    def accepts(self, pair: Pair) -> bool | None:
        """Tell whether the destination accepts `pair`; None where that is not known (any more)."""
        if pair in self._accepted:
            return True
        until = self._refused.get(pair)
        return None if until is None or until <= self._clock() else False

    def learn(self, accepted: Iterable[Pair], refused: Iterable[Pair]) -> None:
        """Take what an association was answered."""
        with self._lock:
            now = self._clock()
            yes, no = frozenset(accepted), frozenset(refused)
            refusals = {pair: until for pair, until in self._refused.items() if until > now and pair not in yes}
            refusals |= {pair: now + REMEMBERED_S for pair in no if pair not in refusals}
            self._accepted = (self._accepted | yes) - no
            self._set(refusals)

    def forget(self) -> None:
        """Have everything asked anew."""
        with self._lock:
            self._accepted = frozenset()
            self._set({})

    def _set(self, refusals: dict[Pair, float]) -> None:
        if refusals.keys() != self._refused.keys():
            self._changed(_encoded(refusals))
        self._refused = refusals


def _encoded(refusals: dict[Pair, float]) -> str:
    return json.dumps([[*pair, until] for pair, until in sorted(refusals.items())])


def _decoded(known: str | None) -> dict[Pair, float]:
    """Return the refusals in `known`; none where it is no text of ours."""
    try:
        return {(str(sop_class), str(syntax)): float(until) for sop_class, syntax, until in json.loads(known or "[]")}
    except (ValueError, TypeError):
        _log.warning("acceptance_unreadable")
        return {}
