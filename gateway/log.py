"""Structured logs: one line an event, with stable snake_case names and no patient data at any level.

`configure` is called once, by the process's entry point; everyone else takes ``structlog.get_logger()``. The standard
library's loggers are routed through the same processors, except those of libraries that may print data sets: these keep
their level and lose their text.
"""

from __future__ import annotations

from gateway.settings import LogTable


def configure(table: LogTable) -> None:
    """Set up logging for this process: text on a terminal, JSON otherwise, on standard error."""
    raise NotImplementedError
