"""The parts of a running gateway: those of all rooms on one state folder, as `lifecycle` and the control API see them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from gateway.core.domain import Role
from gateway.core.errors import GatewayStopping

if TYPE_CHECKING:
    from gateway.app.conflicts import Conflicts
    from gateway.app.detached import Detached
    from gateway.app.listener import Listener
    from gateway.association.scp.acceptor import Acceptor
    from gateway.config.settings import Settings
    from gateway.confirm import Confirmer
    from gateway.core.tasks.wake_ups import WakeUp
    from gateway.delivery import Dispatcher
    from gateway.delivery.journal import Journal
    from gateway.delivery.transcoding.transcoder import Transcoder
    from gateway.intake import Judging, Recorder, Releaser, StorageIntake
    from gateway.jobs.compare import Comparisons
    from gateway.jobs.compare.daily import Daily
    from gateway.jobs.migrate import Migrations
    from gateway.jobs.starts import Starts
    from gateway.jobs.sync.service import Syncs
    from gateway.ledger import Ledger
    from gateway.retrieve import Retriever
    from gateway.spool import Spool


class Jobs:
    """The long operations that run for clients; stopping them all tells each client why."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self.stopping = False

    def __len__(self) -> int:
        return len(self._scopes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run an operation inside the ``async with``.

        Raises:
            GatewayStopping: the gateway is told to stop, before or meanwhile.

        """
        if self.stopping:
            raise GatewayStopping("the gateway is stopping; give the same command again once it is back")
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise GatewayStopping("the gateway was told to stop; give the same command again to carry on where it stopped")

    def stop(self) -> None:
        """Cancel what runs and refuse what comes."""
        self.stopping = True
        for scope in tuple(self._scopes):
            scope.cancel()


@dataclass(frozen=True)
class Engine:
    """The parts of a gateway, open. `assembly` makes it, `lifecycle` starts and drains it, `gateway.control` asks it."""

    settings: Settings
    role: Role
    spool: Spool
    ledger: Ledger
    recorder: Recorder
    intake: StorageIntake
    acceptor: Acceptor
    listener: Listener
    retriever: Retriever
    dispatcher: Dispatcher
    journal: Journal
    transcoder: Transcoder
    confirmer: Confirmer
    conflicts: Conflicts
    releaser: Releaser
    syncs: Syncs
    migrations: Migrations
    comparisons: Comparisons
    detached: Detached
    daily: Daily
    starts: Starts
    judging: Judging
    # Given a hint whenever deliveries may have settled, so that their bytes can go.
    settled: WakeUp

    jobs: Jobs = field(default_factory=Jobs)
    started_at: float = field(default_factory=time.time)


class LazyEngine(Engine):
    """An engine for a short command: a part is made, and its libraries are imported, once it is asked for. Nothing of it runs."""

    def __init__(self, settings: Settings, alone: Mapping[str, Callable[[], object]], assemble: Callable[[], Engine]) -> None:
        """`alone` makes parts that need no others, on any thread; `assemble` makes all the others together, on the trio thread."""
        own = {"settings": settings, "role": Role.DESK, "jobs": Jobs(), "started_at": time.time()}
        self.__dict__.update(own, _alone=alone, _assemble=assemble, _whole=None, _making=threading.RLock())

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)
        own = self.__dict__
        with own["_making"]:
            if name not in own and name in own["_alone"]:
                own[name] = own["_alone"][name]()
            if name in own:
                return own[name]
            own["_whole"] = own["_whole"] or own["_assemble"]()
            return getattr(own["_whole"], name)
