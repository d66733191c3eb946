"""The way of a command to the gateway: over the control socket of the one that runs, or of one it runs itself.

`connect` attaches to the gateway that owns the state folder. Where none does, it runs the same engine on a thread of this
process, for as long as the ``with`` lasts, and asks the same API: for an answer directly, for a stream of events over the same
socket, as everybody else does. Blocking; one thread at a time.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any

from gateway.config.settings import Settings
from gateway.control import sockets
from gateway.control.wire import MAX_REQUEST_BYTES, TOO_LONG, Document, Message, Request, decode, raise_document
from gateway.core.errors import GatewayLost, StateFolderInUse, UsageError

ANSWER_S = 120.0
"""An answer that is not a stream takes no longer: C-ECHO and C-FIND end by their own deadlines before."""

START_S = 20.0
"""The longest time a gateway may take to start, or a short command to leave the state folder, before we give up."""

RETRY_S = 0.1
"""Between two looks at a state folder that is taken while nobody answers yet."""

_BLOCK_BYTES = 1 << 16

Ask = Callable[[str, str, bytes], tuple[int, bytes]]
"""Asks the API of an engine in this process: method, path and body of a request; returns the status and the body of the answer."""

Local = Callable[[Settings], AbstractContextManager[Ask]]
"""Runs an engine in this process inside its ``with``; raises StateFolderInUse where another has the state folder."""


class Client:
    """A gateway as commands see it; every method raises the error that the gateway raised."""

    def __init__(self, address: str, ask: Ask | None = None) -> None:
        """Talk to the Unix socket at `address`, by a connection for each request, or by `ask` to an engine in this process."""
        self._address = address
        self._ask = ask

    def get(self, path: str) -> Document:
        """Return the JSON object at `path`."""
        return self._answered("GET", path, None)

    def post(self, path: str, request: Request) -> Document:
        """Send `request` to `path` and return the JSON object it is answered with."""
        return self._answered("POST", path, request)

    def stream(self, path: str, request: Request, kinds: Iterable[type[Message]]) -> Events:
        """Start the operation at `path`, which tells messages of `kinds`; leaving the ``with`` of what is returned stops it."""
        return Events(self._address, path, request, kinds)

    def _answered(self, method: str, path: str, request: Request | None) -> Document:
        if self._ask is not None:
            with _mapped():
                return _document(*self._ask(method, path, b"" if request is None else _body(request)))
        connection = _Connection(self._address)
        try:
            with _mapped():
                response = connection.ask(method, path, request)
                return _document(response.status, response.read())
        finally:
            connection.close()


class Events(AbstractContextManager["Events"]):
    """The messages of a long operation, in order, until it ends; an error of the gateway is raised where it happened.

    A message of no kind that is known here is passed over: a newer gateway may tell more.
    """

    def __init__(self, address: str, path: str, request: Request, kinds: Iterable[type[Message]]) -> None:
        self._connection = _Connection(address)
        self._path = path
        self._request = request
        self._kinds = tuple(kinds)

    def __enter__(self) -> Events:
        try:
            with _mapped():
                self._response = self._connection.ask("POST", self._path, self._request)
                if self._response.status >= 400:
                    _document(self._response.status, self._response.read())
                self._connection.sock.settimeout(None)
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Message]:
        with _mapped():
            for text in _lines(self._response):
                message = decode(json.loads(text), self._kinds)
                if message is not None:
                    yield message


class _Connection(HTTPConnection):
    """HTTP over a Unix socket. The standard library's client, because every command waits until its client is imported."""

    def __init__(self, address: str) -> None:
        super().__init__("gateway", timeout=ANSWER_S)
        self._address = address

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._address)

    def ask(self, method: str, path: str, request: Request | None) -> HTTPResponse:
        """Send a request and return the answer once its head is there."""
        body = None if request is None else _body(request)
        self.request(method, path, body, {"content-type": "application/json"} if body is not None else {})
        return self.getresponse()


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the lines of a body as they come; HTTPResponse's own iteration takes one that breaks off for one that ends.

    Raises:
        HTTPException: it broke off.

    """
    begun: list[bytes] = []
    while some := response.read1(_BLOCK_BYTES):
        first, *others = some.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise GatewayLost("the gateway did not answer in time") from error
    except (HTTPException, OSError) as error:
        raise GatewayLost("the gateway stopped before it had answered; give the same command again to carry on") from error


def _body(request: Request) -> bytes:
    """Return what is sent of `request`. Raises UsageError for more than the gateway takes."""
    body = request.model_dump_json().encode()
    if len(body) > MAX_REQUEST_BYTES:
        raise UsageError(TOO_LONG)
    return body


def _document(status: int, body: bytes) -> Document:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise GatewayLost(f"the gateway answered {status} without a document") from error
    if status >= 400:
        raise_document(document)
    return dict(document)


@contextmanager
def _attached(settings: Settings, ask: Ask | None = None) -> Iterator[Client]:
    """Talk to whoever listens on the control socket, which may be an engine in this process, asked by `ask`."""
    with sockets.short_address(settings.gateway.state) as address:
        yield Client(address, ask)


@contextmanager
def connect(settings: Settings, *, local: Local, works: bool = False) -> Iterator[Client]:
    """Give a client of the gateway on the state folder of `settings`.

    Where none runs, `local` runs one in this process meanwhile. `works` says that the command needs the whole engine, so that
    one which only answers another command for a moment is waited for.

    Raises:
        StateFolderInUse: another process has the state folder and does not answer, or only answers a command for a moment.

    """
    with ExitStack() as stack:
        ask = _reach(settings, local, works, stack)
        yield stack.enter_context(_attached(settings, ask))


def _reach(settings: Settings, local: Local, works: bool, stack: ExitStack) -> Ask | None:
    """Make sure that a gateway is there; returns how to ask it where it runs in this process."""
    deadline = time.monotonic() + START_S
    while not _suits(settings, works=works):
        try:
            return stack.enter_context(local(settings))
        except StateFolderInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
    return None


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
