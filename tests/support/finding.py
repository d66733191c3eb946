"""A stock pynetdicom that answers C-FIND at STUDY level, and nothing else, as a function says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove

from tests.support.ports import HOST

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

    @contextmanager
    def running(self) -> Iterator[Finder]:
        """Listen until the context ends."""
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
        server = ae.make_server((HOST, 0), evt_handlers=[(evt.EVT_C_FIND, self._find), (evt.EVT_ACCEPTED, self._accepted)])
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
            listening.join(10)

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
