"""Serves the control API: Starlette on Hypercorn's trio worker over the Unix socket of the state folder.

`EventStream` is the answer of long operations: one NDJSON line an event. The operation lives as long as its stream; when
the client closes it, the operation is cancelled. Runs on trio.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.web import sockets
from gateway.web.wire import INTERNAL_ERROR, NDJSON, Document, error_document, line

log = structlog.get_logger()

Emit = Callable[[Document], Awaitable[None]]

GRACE_S = 2.0
"""How long connections may take to end once the gateway has stopped everything else."""


class EventStream(Response):
    """Runs `operation` and streams what it emits; an error of ours becomes the last line, ``{"event": "error", …}``."""

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
        async def emit(document: Document) -> None:
            await send({"type": "http.response.body", "body": line(document), "more_body": True})

        try:
            await self.operation(emit)
        except GatewayError as error:
            await emit({"event": "error", **error_document(error)})
        except Exception:  # the root of a request: the client learns that it failed, the log learns why
            log.exception("control_request_failed")
            await emit({"event": "error", "kind": "RemoteError", "message": INTERNAL_ERROR})
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


def _config(control: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{control.fileno()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = GRACE_S
    config.include_server_header = False
    return config


async def serve_control(
    api: Starlette, state: Path, *, stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `api` on the control socket in `state` until `stop`; the caller holds the lock of the state folder.

    Raises:
        UsageError: the path of the state folder is too long for a Unix socket.

    """
    control = sockets.listen(state)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, api, control, stop)
            task_status.started()
    finally:
        (state / sockets.SOCKET_NAME).unlink(missing_ok=True)


async def _serve(
    api: Starlette, control: socket.socket, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    # Hypercorn owns the descriptor from here and closes it.
    config = _config(control)
    control.detach()
    await serve(cast("Any", api), config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")
