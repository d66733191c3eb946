"""The commands' way to the gateway, and their end when someone interrupts them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gateway.cli.options import settings_of
from gateway.cli.output import render
from gateway.core.domain import Role
from gateway.core.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.control.client import Ask, Client


@contextmanager
def reach(config: Path, *, works: bool = False, detach: bool = False) -> Iterator[tuple[Client, Settings]]:
    """Give a client of the gateway of the configuration file `config`, and its settings.

    Where the gateway that runs was started with another configuration, standard error says so: it is that one which counts.
    `works` says that the command receives or sends; where no gateway runs, all of it is started in this process meanwhile.
    With `detach` it has to be one that runs: what it is left would end with this process. SIGTERM ends the command as Ctrl+C does.

    Raises:
        UsageError: no gateway runs, and `detach` needs one.
        Interrupted: somebody interrupts a command that works.

    Raises what `gateway.control.client.connect` and loading raise, too.
    """
    from gateway.control.client import connect

    settings = settings_of(config)
    role, own = Role.GATEWAY if works else Role.DESK, list[object]()

    def here(asked: Settings) -> AbstractContextManager[Ask]:
        if detach:
            raise UsageError("--detach leaves it to the running gateway, and none runs: start one with gateway serve, or wait here")
        own.append(asked)
        return _here(asked, role)

    with _interrupted_by_sigterm(), connect(settings, local=here, works=works) as client:
        if client.get("/health").get("configuration") != settings.fingerprint():
            render.say(f"gateway: the running gateway does not have what {config} says now: restart it to apply that", err=True)
        try:
            yield client, settings
        except KeyboardInterrupt as error:
            if not works:
                raise
            raise Interrupted(GOES_ON_HERE if own else GOES_ON_THERE) from error


GOES_ON_THERE = (
    "interrupted: the gateway that runs delivers what is queued (gateway status); "
    "give the same command again to carry on where it stopped"
)
GOES_ON_HERE = (
    "interrupted: what is queued is kept, and delivered once gateway serve runs; "
    "give the same command again to carry on where it stopped"
)


def _here(settings: Settings, role: Role) -> AbstractContextManager[Ask]:
    """Run a gateway in this process: only then its libraries are imported."""
    from gateway.control.embedded import local
    from gateway.core import log

    log.configure(settings.log.model_copy(update={"level": "warning"}))
    return local(settings, role=role)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
