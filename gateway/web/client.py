"""How a command reaches the gateway: over the control socket of the one that runs, or of one it runs itself.

`connect` attaches to the gateway that owns the state folder. Where none does, it runs the same engine on a thread of this
process, for as long as the ``with`` lasts, and talks to that one over the same socket. Blocking; one thread at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any

import httpx

from gateway.errors import GatewayLost, StateFolderInUse, UsageError
from gateway.settings import Settings
from gateway.web import sockets
from gateway.web.wire import MAX_REQUEST_BYTES, TOO_LONG, Document, Request, raise_document

ANSWER_S = 120.0
"""An answer that is not a stream takes no longer: C-ECHO and C-FIND end by their own deadlines before."""

START_S = 20.0
"""How long a gateway may take to start, or a short command to leave the state folder, before we give up."""

RETRY_S = 0.1
"""Between two looks at a state folder that is taken while nobody answers yet."""

Local = Callable[[Settings], AbstractContextManager[None]]
"""Runs an engine in this process inside its ``with``; raises StateFolderInUse where another has the state folder."""


class Client:
    """A gateway as commands see it; every method raises the error that the gateway raised."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, path: str, **parameters: Any) -> Document:
        """Return the JSON object at `path`."""
        with _mapped():
            return _document(self._http.get(path, params=parameters))

    def post(self, path: str, request: Request) -> Document:
        """Send `request` to `path` and return the JSON object it is answered with."""
        with _mapped():
            return _document(self._http.post(path, content=_body(request), headers=_JSON))

    def stream(self, path: str, request: Request) -> Events:
        """Start the operation at `path`; leaving the ``with`` of what is returned stops it."""
        return Events(self._http, path, request)


class Events(AbstractContextManager["Events"]):
    """The events of a long operation, in order, until it ends; an error of the gateway is raised where it happened."""

    def __init__(self, http: httpx.Client, path: str, request: Request) -> None:
        self._stream = http.stream("POST", path, content=_body(request), headers=_JSON, timeout=_ENDLESS)

    def __enter__(self) -> Events:
        with _mapped():
            self._response = self._stream.__enter__()
            if self._response.is_error:
                self._response.read()
                self._stream.__exit__(None, None, None)
                _document(self._response)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Document]:
        with _mapped():
            for text in self._response.iter_lines():
                document = json.loads(text)
                if document.get("event") == "error":
                    raise_document(document)
                yield document


_JSON = {"content-type": "application/json"}
_ENDLESS = httpx.Timeout(START_S, read=None)


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise GatewayLost("the gateway did not answer in time") from error
    except httpx.TransportError as error:
        raise GatewayLost("the gateway stopped before it had answered; give the same command again to carry on") from error


def _body(request: Request) -> bytes:
    """Return what is sent of `request`. Raises UsageError for more than the gateway takes."""
    body = request.model_dump_json().encode()
    if len(body) > MAX_REQUEST_BYTES:
        raise UsageError(TOO_LONG)
    return body


def _document(response: httpx.Response) -> Document:
    try:
        document = response.json()
    except ValueError as error:
        raise GatewayLost(f"the gateway answered {response.status_code} without a document") from error
    if response.is_error:
        raise_document(document)
    return dict(document)


@contextmanager
def _attached(settings: Settings) -> Iterator[Client]:
    """Talk to whoever listens on the control socket."""
    with sockets.short_address(settings.gateway.state) as address:
        transport = httpx.HTTPTransport(uds=address)
        with httpx.Client(transport=transport, base_url="http://gateway", timeout=ANSWER_S) as http:
            yield Client(http)


@contextmanager
def connect(settings: Settings, *, local: Local, works: bool = False) -> Iterator[Client]:
    """Give a client of the gateway on the state folder of `settings`.

    Where none runs, `local` runs one in this process meanwhile. `works` says that the command needs the whole engine, so that
    one which only answers another command for a moment is waited for.

    Raises:
        StateFolderInUse: another process has the state folder and does not answer, or only answers a command for a moment.

    """
    with ExitStack() as stack:
        _reach(settings, local, works, stack)
        yield stack.enter_context(_attached(settings))


def _reach(settings: Settings, local: Local, works: bool, stack: ExitStack) -> None:
    deadline = time.monotonic() + START_S
    while not _suits(settings, works=works):
        try:
            stack.enter_context(local(settings))
        except StateFolderInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _suits(settings: Settings, *, works: bool) -> bool:
    if not sockets.answers(settings.gateway.state):
        return False
    try:
        with _attached(settings) as client:
            health = client.get("/health")
    except GatewayLost:
        return False
    return not works or serves_all(health)


def serves_all(health: Mapping[str, Any]) -> bool:
    """Tell from ``/health`` whether the gateway runs all its stages, not only a short command's desk."""
    return health.get("role") == "gateway"
