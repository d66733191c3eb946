"""A gateway inside a command's own process, on a thread of its own, for the time that the command takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import trio

from gateway.app.lifecycle import Stop, first_of_ours, run
from gateway.config.settings import Settings
from gateway.control.api import create_api
from gateway.control.client import ANSWER_S, Ask
from gateway.control.running import CONTROL
from gateway.control.server import GRACE_S, answer
from gateway.core.domain import Role
from gateway.core.errors import Interrupted, leaf
from gateway.core.log import get_logger
from gateway.core.tasks.wake_ups import tell_trio

log = get_logger()

DRAIN_S = 5.0
"""The longest time that work at hand may take to finish once the command is done with it."""

INTERRUPTED_S = 0.5
"""The same once somebody interrupted the command: a person waits, and what is broken off is known to be uncertain."""


@contextmanager
def local(settings: Settings, *, role: Role, listens: bool = False) -> Iterator[Ask]:
    """Run a gateway on a thread of this process while the ``with`` lasts; for the commands, when none runs.

    It opens its ports at once if it `listens`, else when an operation needs a caller. Given is how to ask its API from here.

    Raises as `run` does, on entering or, when it crashed meanwhile, on leaving.
    """
    runner = _Local(settings, role, listens)
    try:
        runner.start()
        yield runner.ask
    except (KeyboardInterrupt, Interrupted):
        runner.interrupted = True
        raise
    finally:
        runner.finish()


class _Local:
    """A gateway on its own thread and the two ways it ends: told to, or by an error that the caller gets."""

    def __init__(self, settings: Settings, role: Role, listens: bool) -> None:
        self._settings = settings
        self._role = role
        self._listens = listens
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._begun = threading.Event()
        self._up = threading.Event()
        self._error: BaseException | None = None
        self.interrupted = False
        self._thread = threading.Thread(target=self._run, name="gateway")

    def start(self) -> None:
        """Return once the gateway answers. Raises what it ended with where it did not come so far."""
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of an answer of the gateway's API. An interrupt meanwhile tells it that nobody waits.

        Raises:
            TimeoutError: there is none after `ANSWER_S`.
            ConnectionError: the gateway ended before.
        """
        answered, left = Future[tuple[int, bytes]](), trio.Event()

        async def answering() -> None:
            try:
                answered.set_result(await answer(self._api, method, path, body, left))
            except Exception as error:  # noqa: BLE001 - the root of a request, as a connection is one
                log.warning("control_connection_failed", error=type(leaf(error)).__name__)
            finally:
                if not answered.done():
                    answered.set_exception(ConnectionAbortedError())

        def begin() -> None:
            if self._nursery is None:
                answered.set_exception(ConnectionAbortedError())
            else:
                self._nursery.start_soon(answering)

        if not self._tell(begin):
            raise ConnectionAbortedError
        try:
            return answered.result(ANSWER_S)
        finally:
            self._tell(left.set)

    def finish(self) -> None:
        """Drain and wait; an interrupt meanwhile breaks off what still runs. Raises what the gateway ended with."""
        self._begun.wait()
        self._tell(self._leave)
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self._tell(self._leave)
        if self._error is not None:
            raise self._error

    def _tell(self, what: Callable[[], object]) -> bool:
        """Have the gateway's thread call `what`, unless it has ended."""
        return self._token is not None and tell_trio(self._token, what, idempotent=False)

    def _leave(self) -> None:
        if self.interrupted:
            self._stop.drain_s = INTERRUPTED_S
        if self._left.is_set():
            self._stop.request()
        self._left.set()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - the root of a thread: whoever asked for the gateway gets it
            self._error = error
        finally:
            self._begun.set()
            self._up.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop, self._left = Stop(drain_s=DRAIN_S), trio.Event()
        self._begun.set()
        running = partial(run, self._settings, control=CONTROL, role=self._role, listens=self._listens, stop=self._stop)
        with first_of_ours():
            async with trio.open_nursery() as nursery:
                self._api = create_api(await nursery.start(running))
                # Requests end before the gateway does: they use its parts.
                async with trio.open_nursery() as requests:
                    self._nursery = requests
                    self._up.set()
                    try:
                        await self._left.wait()
                    finally:
                        self._nursery = None
                    requests.cancel_scope.deadline = trio.current_time() + GRACE_S
                self._stop.request()
