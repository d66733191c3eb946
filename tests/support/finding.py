"""A stock pynetdicom that answers C-FIND at STUDY level, and nothing else, as a function says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove

from tests.support.ports import HOST
from tests.support.waiting import PATIENCE_S

_config.LOG_HANDLER_LEVEL = "none"
_LOOK_S = 0.02

ABORT = -1
"""A final status that is none: the association is aborted in its place."""

Answering = Callable[[dict[str, str]], tuple[Sequence[Dataset], int]]
"""Given the keys with a value: the matches and the final status."""


@dataclass
class Finder:
    """The SCP on a port of its own; use `running`."""

    answer: Answering
    port: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    associations: int = 0
    ended: int = 0
    """Associations that ended, however they did."""

    @contextmanager
    def running(self) -> Iterator[Finder]:
        """Listen until the context ends."""
        ae = AE(ae_title="ARCHIVE")
        ae.maximum_associations = 100
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        server = ae.make_server((HOST, 0), evt_handlers=self._handlers())
        self.port = server.socket.getsockname()[1]
        ae._servers.append(server)
        server.service_actions = lambda: None  # it would collect garbage every few looks
        listening = threading.Thread(target=server.serve_forever, args=(_LOOK_S,), daemon=True)
        listening.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            listening.join(PATIENCE_S)

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_CONN_CLOSE, self._ended),
        ]

    def _ended(self, _event: evt.Event) -> None:
        self.ended += 1

    def _accepted(self, _event: evt.Event) -> None:
        self.associations += 1

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        keys = {element.keyword: str(element.value) for element in event.identifier if element.value}
        self.asked.append(keys)
        matches, status = self.answer(keys)
        for match in matches:
            yield 0xFF00, match
        if status == ABORT:
            event.assoc.abort()
        elif status:
            yield status, None


@dataclass
class Endless(Finder):
    """Answers every query with the same match again and again, until C-CANCEL comes; where `deaf`, until the association ends."""

    deaf: bool = False
    cancelled: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Finder]:
        """Listen until the context ends, which ends all answers."""
        with super().running():
            try:
                yield self
            finally:
                self.over.set()

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append({})
        heard = False
        while not self.over.wait(0.01) and event.assoc.is_established:
            if event.is_cancelled and not heard:
                heard = True
                self.cancelled += 1
            if heard and not self.deaf:
                yield 0xFE00, None
                return
            for match in self.answer({})[0]:
                yield 0xFF00, match
