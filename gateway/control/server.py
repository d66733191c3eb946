"""Serves the control API: Starlette on Hypercorn's trio worker over the Unix socket of the state folder.

`EventStream` is the answer of long operations: one NDJSON line an event. The operation lives as long as its stream; when
the client closes it, the operation is cancelled. Connections are taken here, and not by Hypercorn's own `serve`, because there an
error in one of them ends them all. Hypercorn is imported once somebody connects: to the command that runs the engine in its own
process `answer` gives the same API without a connection. Runs on trio.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Message as ASGIMessage
from starlette.types import Receive, Scope, Send

from gateway.control import sockets
from gateway.control.wire import INTERNAL_ERROR, NDJSON, Document, Message, encode, error_document, error_line, line
from gateway.core.errors import GatewayError, leaf
from gateway.core.files import unusable, using
from gateway.core.log import get_logger

log = get_logger()

Emit = Callable[[Message], Awaitable[None]]

GRACE_S = 2.0
"""The longest time that connections may take to end once the gateway has stopped everything else."""


class EventStream(Response):
    """Runs `operation` and streams the messages that it emits; an error of ours becomes the last line."""

    def __init__(self, operation: Callable[[Emit], Awaitable[None]]) -> None:
        self.operation = operation
        super().__init__(media_type=NDJSON)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_disconnect, receive, nursery.cancel_scope)
            await self._stream(send)
            nursery.cancel_scope.cancel()

    async def _stream(self, send: Send) -> None:
        async def write(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async def emit(message: Message) -> None:
            await write(line(encode(message)))

        try:
            await self.operation(emit)
        except Exception as raised:  # the root of a request: the client learns that it failed, the log learns why
            match error := leaf(raised):
                case GatewayError():
                    document = error_document(error)
                case OSError():
                    document = error_document(unusable(error))
                case _:
                    log.exception("control_request_failed")
                    document = {"kind": "RemoteError", "message": INTERNAL_ERROR}
            await write(error_line(document))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_disconnect(receive: Receive, cancel_scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    cancel_scope.cancel()


async def while_connected(receive: Receive, answer: Callable[[], Awaitable[Document]]) -> Document:
    """Return what `answer` returns, or nothing where the client leaves before: then it is cancelled."""
    document: Document = {}
    failure: GatewayError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_disconnect, receive, nursery.cancel_scope)
        try:
            document = await answer()
        except GatewayError as error:
            failure = error  # raised again outside the nursery, as it was
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return document


async def answer(api: Starlette, method: str, path: str, body: bytes, left: trio.Event) -> tuple[int, bytes]:
    """Return the status and the body with which `api` answers a request of this process; `left` is set once nobody waits for it."""
    asked, status, parts = False, 500, list[bytes]()

    async def receive() -> ASGIMessage:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: ASGIMessage) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    scope = {"type": "http", "method": method, "path": path, "root_path": "", "query_string": b"", "headers": []}
    await api(scope, receive, send)
    return status, b"".join(parts)


class _Hypercorn:
    """Serves an API on connections; made, and its libraries imported, once somebody connects."""

    def __init__(self, api: Starlette) -> None:
        from hypercorn.config import Config
        from hypercorn.trio.tcp_server import TCPServer
        from hypercorn.trio.worker_context import WorkerContext
        from hypercorn.typing import ConnectionState
        from hypercorn.utils import wrap_app

        config = Config()
        config.accesslog = None
        config.errorlog = None
        config.graceful_timeout = GRACE_S
        config.include_server_header = False
        context = WorkerContext(None)
        app = wrap_app(cast("Any", api), config.wsgi_max_body_size, "asgi")
        self._server = partial(TCPServer, app, config, context, ConnectionState({}))
        self.terminate = context.terminated.set

    async def connection(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end."""
        await self._server(cast("Any", stream))


async def serve_control(
    api: Starlette, state: Path, *, stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `api` on the control socket in `state` until `stop`; the caller holds the lock of the state folder.

    Raises:
        UsageError: the path of the state folder is too long for a Unix socket.
        FileUnusable: the socket cannot be made.

    """
    with using(state / sockets.SOCKET_NAME, "cannot open the control socket"):
        control = sockets.listen(state)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, api, control, stop)
            task_status.started()
    finally:
        (state / sockets.SOCKET_NAME).unlink(missing_ok=True)


async def _serve(
    api: Starlette, control: socket.socket, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Take connections until `stop`, then give those that are open `GRACE_S`. Closes `control`."""
    hypercorn: _Hypercorn | None = None

    async def connection(stream: trio.SocketStream) -> None:
        nonlocal hypercorn
        try:
            hypercorn = hypercorn or _Hypercorn(api)
            await hypercorn.connection(stream)
        except Exception as error:  # noqa: BLE001 - the root of a connection: a client that leaves when it likes costs itself only
            log.warning("control_connection_failed", error=type(leaf(error)).__name__)

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(control))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            taking = partial(trio.serve_listeners, connection, [listener], handler_nursery=connections)
            await accepting.start(taking)
            task_status.started()
            await stop.wait()
            accepting.cancel_scope.cancel()
        if hypercorn is not None:
            await hypercorn.terminate()
        connections.cancel_scope.deadline = trio.current_time() + GRACE_S
