"""``gateway serve``: the gateway itself, until it is told to stop."""

from __future__ import annotations

import os
import threading
from typing import Annotated, Literal

import typer

from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, settings_of

STUCK_S = 5.0
"""After the drain nothing is left but control connections; a client that reads nothing may not keep the process."""


def serve(
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="The lowest level that is logged, in place of [log] level.", show_default=False),
    ] = None,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Receive, route and deliver until SIGTERM or Ctrl+C, then finish what runs and stop."""
    import trio

    from gateway.control.running import serve as run
    from gateway.core import log

    settings = settings_of(path)
    log.configure(settings.log.model_copy(update={"level": log_level}) if log_level else settings.log)
    trio.run(run, settings, lambda: _leave_within(STUCK_S))


def _leave_within(seconds: float) -> None:
    """End the process in `seconds` even where a thread or a connection would keep it; everything is durable by now."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()
