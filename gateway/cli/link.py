"""How commands reach the gateway, and how they end when someone interrupts them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import typer

from gateway import log
from gateway.cli.options import settings_of
from gateway.engine import Role
from gateway.settings import Settings
from gateway.web.client import Client, connect


@contextmanager
def reach(config: Path, *, works: bool = False) -> Iterator[tuple[Client, Settings]]:
    """Give a client of the gateway of the configuration file `config`, and its settings.

    Where the gateway that runs was started with another configuration, standard error says so: it is that one which counts.
    `works` says that the command receives or sends; where no gateway runs, all of it is started in this process meanwhile.
    SIGTERM ends the command as Ctrl+C does. Raises what `gateway.web.client.connect` and loading raise.
    """
    # Here and not at the top: `--help` and the commands that need no engine start without its libraries.
    from gateway.local import local

    settings = settings_of(config)
    log.configure(settings.log.model_copy(update={"level": "warning"}))
    role = Role.GATEWAY if works else Role.DESK
    with _interrupted_by_sigterm(), connect(settings, local=partial(local, role=role), works=works) as client:
        if client.get("/health").get("configuration") != settings.fingerprint():
            typer.echo(f"gateway: the running gateway does not have what {config} says now: restart it to apply that", err=True)
        yield client, settings


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
