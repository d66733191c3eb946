"""A gateway inside a command's own process, on a thread of its own, for the time that the command takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

from gateway.app import Stop, first_of_ours, run
from gateway.domain import Role
from gateway.settings import Settings

DRAIN_S = 5.0
"""The longest time that work at hand may take to finish once the command is done with it."""


@contextmanager
def local(settings: Settings, *, role: Role, listens: bool = False) -> Iterator[None]:
    """Run a gateway on a thread of this process while the ``with`` lasts; for the commands, when none runs.

    It opens its ports at once if it `listens`, else when an operation needs a caller.

    Raises as `run` does, on entering or, when it crashed meanwhile, on leaving.
    """
    runner = _Local(settings, role, listens)
    try:
        runner.start()
        yield
    finally:
        runner.finish()


class _Local:
    """A gateway on its own thread and the two ways it ends: told to, or by an error that the caller gets."""

    def __init__(self, settings: Settings, role: Role, listens: bool) -> None:
        self._settings = settings
        self._role = role
        self._listens = listens
        self._token: trio.lowlevel.TrioToken | None = None
        self._begun = threading.Event()
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway")

    def start(self) -> None:
        """Return once the gateway answers. Raises what it ended with where it did not come so far."""
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Drain and wait; an interrupt meanwhile breaks off what still runs. Raises what the gateway ended with."""
        self._begun.wait()
        self._request()
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self._request()
        if self._error is not None:
            raise self._error

    def _request(self) -> None:
        if self._token is None:
            return
        try:
            self._token.run_sync_soon(self._stop.request)
        except trio.RunFinishedError:
            return

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
        self._stop = Stop()
        self._begun.set()
        with first_of_ours():
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    partial(run, self._settings, role=self._role, listens=self._listens, stop=self._stop, drain_s=DRAIN_S)
                )
                self._up.set()
