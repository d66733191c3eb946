"""The instances that a destination listed before anything was sent to it: having one proves nothing if it had it already.

It is asked on the association that is about to send: once a study whether it has the study at all (PS3.4 §C.4.1), which most of the
time it has not, and where it has, once a series for its instances. Its answers are shared by all sessions of the destination,
so that none asks after another has sent. Many studies are asked for by one list, with two among them that are there for sure: an
archive that does not name these does not match by lists, or cuts its answers short, and is asked study by study. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

REMEMBERED_S = 600.0
"""After this long a study is asked for anew: somebody else may have sent something of it."""

MAX_ANSWERS = 5_000
"""Answers remembered for a destination."""

MAX_LISTED = 500_000
"""SOP Instance UIDs remembered for a destination."""

LONGEST_WAIT_S = 600.0
"""A session waits no longer for what another one asks."""

WITNESSES = 2
"""The number of studies, there for sure, that are asked for with others."""

Key = tuple[str, ...]
"""A Study Instance UID, or one with a Series Instance UID."""

Listed = frozenset[str] | None
"""UIDs that a destination listed; None where it could not be asked."""


class Before:
    """The UIDs that one destination listed, by the study or series that it was asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Key, tuple[float, Listed]] = OrderedDict()
        self._listed = 0
        self._asking: dict[Key, threading.Event] = {}
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._lists = True

    def knows(self, study: str) -> bool:
        """Tell whether it is known what the destination had of the study, or that this cannot be asked."""
        return self._known((study,)) is not None

    def sent(self, study: str) -> None:
        """Note that something of the study is at the destination now."""
        if study not in self._sent:
            with self._lock:
                self._sent[study] = None
                while len(self._sent) > WITNESSES:
                    self._sent.popitem(last=False)

    def ask_ahead(self, studies: Iterable[str], ask: Callable[[list[str]], Collection[str] | None]) -> None:
        """Ask by `ask` for those of `studies` that are not known, all at once, where that can be and is worth it."""
        with self._lock:
            witnesses = list(self._sent)
        if not self._lists or len(witnesses) < WITNESSES:
            return
        unknown = [study for study in dict.fromkeys(studies) if self._known((study,)) is None and study not in witnesses]
        if len(unknown) <= WITNESSES:
            return
        now, listed = self._clock(), ask([*witnesses, *unknown])
        if listed is None:
            return
        if not set(witnesses) <= set(listed):
            self._lists = False
            return
        for study in unknown:
            # The session that asked first asked before anything was sent.
            if self._known((study,)) is None:
                self._remember((study,), (now, frozenset({study} & set(listed))))

    def answer(self, key: Key, ask: Callable[[], Listed]) -> Listed:
        """Return what was listed for `key`, asking by `ask` where that is not known; raises what `ask` raises."""
        if (known := self._known(key)) is not None:
            return known[1]
        while (busy := self._begin(key)) is not None:
            busy.wait(LONGEST_WAIT_S)
        try:
            known = self._known(key)
            if known is None:
                known = self._clock(), ask()
                self._remember(key, known)
            return known[1]
        finally:
            with self._lock:
                self._asking.pop(key).set()

    def _begin(self, key: Key) -> threading.Event | None:
        """Begin to answer, or return what tells that another thread has done so."""
        with self._lock:
            if (busy := self._asking.get(key)) is None:
                self._asking[key] = threading.Event()
            return busy

    def _known(self, key: Key) -> tuple[float, Listed] | None:
        with self._lock:
            known = self._answers.get(key)
            return None if known is None or self._clock() - known[0] > REMEMBERED_S else known

    def _remember(self, key: Key, known: tuple[float, Listed]) -> None:
        with self._lock:
            self._forget(key)
            self._answers[key] = known
            self._listed += len(known[1] or ())
            while len(self._answers) > MAX_ANSWERS or self._listed > MAX_LISTED:
                self._forget(next(iter(self._answers)))

    def _forget(self, key: Key) -> None:
        _, listed = self._answers.pop(key, (0.0, None))
        self._listed -= len(listed or ())
