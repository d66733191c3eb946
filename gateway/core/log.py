"""Structured logs: one line an event on standard error, stable snake_case names, no patient data at any level.

`configure` is called once, by the process's entry point; everyone else takes `get_logger`. structlog, and rich with it, is
imported once something is logged: a short command mostly has nothing to say. Libraries log through the standard library:
those whose text is known to carry no data set are passed on as the event ``library``; DICOM libraries may put element values
into theirs, so of these only the level and the logger's name remain.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor


_MUTE = ("pydicom", "pynetdicom", "pylibjpeg", "openjpeg")
"""Loggers whose text may hold element values: everything below a warning is dropped, and the text of the rest."""

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

WITHHELD = "text withheld: it may hold element values"


class _Once:
    """Does something once, and has whoever comes meanwhile wait until it is done. Thread-safe."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._lock = threading.RLock()
        self._begun = self._done = False

    def __call__(self) -> None:
        if self._done:
            return
        with self._lock:
            if not self._begun:
                self._begun = True
                self._action()
                self._done = True


_set_up = _Once(lambda: None)
"""Configures structlog before the first line: without it, structlog writes everything to standard output."""


class _Logger:
    """structlog's logger, as it is configured when something is logged."""

    def __getattr__(self, name: str) -> Any:
        import structlog

        _set_up()
        return getattr(structlog.get_logger(), name)


def get_logger() -> Any:
    """Return the logger of this process; its methods are structlog's."""
    return _Logger()


class LogSettings(Protocol):
    """The level and the form of what is logged, as ``[log]`` says them."""

    @property
    def level(self) -> str:
        """The least level that is logged: ``debug``, ``info``, ``warning`` or ``error``."""

    @property
    def format(self) -> str:
        """``text``, ``json``, or ``auto`` for text on a terminal."""


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up logging for this process: text where `stream` (standard error) is a terminal, JSON otherwise."""
    global _set_up  # noqa: PLW0603 - there is one log in a process
    output = stream if stream is not None else sys.stderr
    level = _LEVELS[settings.level]
    _set_up = _Once(partial(_configure_structlog, settings.format, level, output))
    if "structlog" in sys.modules:
        _set_up()
    _route_standard_library(level)
    warnings.showwarning = _warned


def _configure_structlog(form: str, level: int, output: TextIO) -> None:
    import structlog

    structlog.configure(
        processors=[*_processors(), _renderer(form, output)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )


def _processors() -> list[Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception,
    ]


def _renderer(form: str, output: TextIO) -> Processor:
    import structlog

    as_text = form == "text" or (form == "auto" and output.isatty())
    if as_text:
        return structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


def _exception(_: Any, __: str, event: MutableMapping[str, Any]) -> EventDict:
    """Replace ``exc_info`` by where an exception came from: its text may hold what a data set held."""
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = type(error).__name__
        event["raised_at"] = raised_at(error)
    return event


def raised_at(error: BaseException, depth: int = 6) -> list[str]:
    """Return the last `depth` frames of an exception as ``module:function:line``, without its text or any value."""
    frames, trace = list[str](), error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-depth:]


def _route_standard_library(level: int) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Passer):
            root.removeHandler(handler)
    root.addHandler(_Passer())
    root.setLevel(max(level, logging.INFO))
    for name in _MUTE:
        muted = logging.getLogger(name)
        muted.handlers.clear()
        muted.setLevel(logging.WARNING)
        muted.propagate = True
    # An access line a request and an SQL statement an event are noise below a warning.
    for name in ("hypercorn", "httpx", "httpcore", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Passer(logging.Handler):
    """Hands the standard library's records to structlog, at the root logger only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as the event ``library``."""
        logger = get_logger()
        text = WITHHELD if record.name.partition(".")[0] in _MUTE else record.getMessage()
        fields: Mapping[str, Any] = {"logger": record.name, "text": text}
        logger.log(
            record.levelno, "library", exc_info=record.exc_info if record.exc_info and record.exc_info[1] else None, **fields
        )


def _warned(  # noqa: PLR0917 - the signature is the standard library's
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """Log a Python warning by its kind and place only: pydicom's quote the element value that they are about."""
    get_logger().warning(
        "library_warning", category=category.__name__, module=filename.rpartition("site-packages/")[2], line=lineno
    )
