"""The control API: what can be asked of a running gateway, as routes. Thin: the work is in the modules beside it.

::

    GET  /health        {"role", "version", "configuration", "draining"}
    GET  /status        everything that `gateway status` shows
    POST /queue/list    QueueList → a page of deliveries
    POST /queue/act     QueueAction → how many changed, and why others did not
    POST /queue/export  QueueExport → NDJSON events
    POST /echo          EchoCommand → one result a peer
    POST /folder/accept FolderCommand → the folder that is taken
    POST /find          FindCommand → matches
    POST /pull          PullCommand → NDJSON events
    POST /send          SendCommand → NDJSON events
    POST /sync          SyncCommand → NDJSON events
    POST /migrate       MigrateCommand → NDJSON events
    POST /compare       CompareCommand → NDJSON events
    GET  /jobs          every migration, the newest first
    POST /jobs/show     JobQuery → how far a migration is
    POST /jobs/report   JobQuery → what became of each of its studies
    POST /jobs/act      JobAction → how far it is then
    POST /jobs/begin    StartAction → the same name

An error is a JSON object ``{"kind", "message", "retryable"}``, with ``fields`` where it has some (see `wire`).
Closing the stream of ``/pull``, ``/send``, ``/sync``, ``/migrate`` (without `detach`) or ``/queue/export`` stops the operation; the
same request carries on where it stopped.
A client that leaves ``/find`` or ``/echo`` cancels what it asked for.
Runs on trio; only the socket's owner gets here. Modules for a request are imported when it comes: a short command waits for its own
part of it only.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.app.engine import Engine
from gateway.control import wire
from gateway.control.server import Emit, EventStream, while_connected
from gateway.control.wire import Document
from gateway.core.domain import Action, Role, printable
from gateway.core.errors import AssociationError, GatewayError, UsageError, require_known
from gateway.core.files import unusable
from gateway.core.log import get_logger

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from gateway.ledger.deliveries import queue

log = get_logger()

BODY_S = 60.0
"""The longest time that the body of a request may take to come, in seconds."""

Command = TypeVar("Command", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


def create_api(engine: Engine) -> Starlette:
    """Return the control API of `engine` as an ASGI application."""

    def streamed(path: str, model: type[Command], work: str) -> Route:
        return Route(path, _streaming(model, partial(_work(work), engine)), methods=["POST"])

    def answered(path: str, answer: Callable[[Engine, Request], Awaitable[Document]]) -> Route:
        return Route(path, _answering(partial(answer, engine)), methods=["POST"])

    routes = [
        Route("/health", _answering(lambda _: _health(engine))),
        Route("/status", _answering(lambda _: _work("status:status")(engine))),
        answered("/queue/list", _queue_list),
        answered("/queue/act", _queue_act),
        streamed("/queue/export", wire.QueueExport, "export:export_instances"),
        answered("/echo", _echo),
        answered("/folder/accept", partial(_done, wire.FolderCommand, "peers:accept_folder")),
        answered("/find", _find),
        streamed("/pull", wire.PullCommand, "detaching:pull"),
        streamed("/send", wire.SendCommand, "detaching:send"),
        streamed("/migrate", wire.MigrateCommand, "migrating:migrate"),
        streamed("/compare", wire.CompareCommand, "comparing:compare"),
        Route("/jobs", _answering(lambda _: _work("migrating:listed")(engine))),
        answered("/jobs/show", partial(_of_job, "migrating:shown")),
        answered("/jobs/report", partial(_of_job, "migrating:reported")),
        answered("/jobs/act", partial(_done, wire.JobAction, "migrating:act")),
        answered("/jobs/begin", _begin),
        streamed("/sync", wire.SyncCommand, "syncing:sync"),
    ]
    return Starlette(routes=routes)


def _work(where: str) -> Callable[..., Awaitable[Any]]:
    """Return the function ``module:name`` of `gateway.control.commands`, whose module is imported once it is called."""
    module, _, name = where.partition(":")

    async def work(*given: Any) -> Any:
        return await getattr(import_module(f"gateway.control.commands.{module}"), name)(*given)

    return work


async def _done(model: type[Command], work: str, engine: Engine, request: Request) -> Document:
    """Do `work` as the request's command says, and return what it returns."""
    return dict(await _work(work)(engine, await _command(request, model)))


async def _of_job(work: str, engine: Engine, request: Request) -> Document:
    """Return what `work` returns of the job that the request names."""
    return dict(await _work(work)(engine, (await _command(request, wire.JobQuery)).id))


def _answering(answer: Callable[[Request], Awaitable[Document]]) -> Handler:
    """Make a handler of a function that returns a document or raises one of our errors."""

    async def handler(request: Request) -> Response:
        try:
            return JSONResponse(await answer(request))
        except GatewayError as error:
            return _refused(error)
        except OSError as error:
            return _refused(unusable(error))
        except Exception:  # the root of a request: the client learns that it failed, the log learns why
            log.exception("control_request_failed", path=request.url.path)
            return JSONResponse({"kind": "RemoteError", "message": wire.INTERNAL_ERROR}, 500)

    return handler


def _streaming(model: type[Command], operation: Callable[[Command, Emit], Awaitable[None]]) -> Handler:
    """Make a handler that streams what `operation` emits, for as long as the client listens."""

    async def handler(request: Request) -> Response:
        try:
            command = await _command(request, model)
        except GatewayError as error:
            return _refused(error)
        return EventStream(lambda emit: operation(command, emit))

    return handler


def _refused(error: GatewayError) -> Response:
    return JSONResponse(wire.error_document(error), _http_status(error))


def _http_status(error: GatewayError) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, AssociationError):
        return 502
    return 503 if error.retryable else 500


async def _body(request: Request) -> bytes:
    """Return the body of a request, given up at `MAX_REQUEST_BYTES` or after `BODY_S`. Raises UsageError."""
    body = bytearray()
    with trio.move_on_after(BODY_S) as scope:
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > wire.MAX_REQUEST_BYTES:
                    raise UsageError(wire.TOO_LONG)
        except ClientDisconnect as error:
            raise UsageError("the client left before it had sent its request") from error
    if scope.cancelled_caught:
        raise UsageError(f"a request that had not come whole after {BODY_S:g} s")
    return bytes(body)


async def _command(request: Request, model: type[Command]) -> Command:
    try:
        return model.model_validate_json(await _body(request))
    except ValidationError as error:
        # The values stay out of the message: they may name a patient.
        problems = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        raise UsageError(f"not a request that this gateway understands: {problems}") from error


async def _health(engine: Engine) -> Document:
    return {
        "role": engine.role,
        "version": __version__,
        "configuration": engine.settings.fingerprint(),
        "draining": engine.jobs.stopping,
    }


async def _queue_list(engine: Engine, request: Request) -> Document:
    from gateway.ledger.deliveries import queue

    command = await _command(request, wire.QueueList)
    selection = command.where.selection()

    def page() -> Document:
        with engine.ledger.read() as connection:
            _require_known(engine, connection, selection)
            entries = queue.entries(connection, selection, limit=command.limit, offset=command.offset)
            return {"total": queue.count(connection, selection), "entries": [_shown(entry) for entry in entries]}

    return await trio.to_thread.run_sync(page)


def _shown(entry: queue.Entry) -> Document:
    """Return a delivery as it crosses the socket: of where its bytes are, the path of a file that is sent in place."""
    from gateway.spool import in_place

    document = asdict(entry)
    file = in_place(document.pop("location"))
    return document | {"path": None if file is None else printable(str(file.path))}


def _require_known(engine: Engine, connection: Connection, selection: queue.Selection) -> None:
    """Raise UsageError for a destination that is neither configured nor one to which the queue holds deliveries."""
    from gateway.ledger.deliveries import queue

    configured = engine.settings.destinations
    gone = [name for name in selection.destinations if name not in configured and queue.knows(connection, name)]
    require_known("destination", selection.destinations, [*configured, *gone])


async def _queue_act(engine: Engine, request: Request) -> Document:
    from gateway.ledger.deliveries import queue

    command = await _command(request, wire.QueueAction)
    selection = command.where.selection()
    if selection.is_everything and not command.where.everything:
        raise UsageError("name deliveries by id, destination, state or study, or say that all of them are meant")

    def looked() -> tuple[list[queue.Selection], list[queue.Unmoved]]:
        with engine.ledger.read() as connection:
            _require_known(engine, connection, selection)
            return queue.parts(connection, selection, command.action), queue.unmoved(connection, selection, command.action)

    parts, unmoved = await trio.to_thread.run_sync(looked)
    changed = 0
    for part in parts:
        change = partial(queue.act, selection=part, action=command.action, now=time.time())
        changed += await trio.to_thread.run_sync(engine.ledger.write, change)
    log.info("queue_changed", action=command.action, changed=changed)
    _tell(engine, command.action, selection)
    left = {"unchanged": [asdict(one) for one in unmoved]} if unmoved else {}
    return {"action": command.action, "changed": changed} | left


def _tell(engine: Engine, action: Action, selection: queue.Selection) -> None:
    """Wake who has something to do after `action`: a person who retries wants to see it tried, circuit or not."""
    if engine.role is Role.DESK:
        return
    if action is Action.RETRY:
        for name in selection.destinations or (None,):
            engine.dispatcher.retry(name)
    else:
        engine.dispatcher.nudge()
    engine.settled.give()


async def _begin(engine: Engine, request: Request) -> Document:
    name = (await _command(request, wire.StartAction)).name
    if not engine.starts.resume(name):
        waiting = ", ".join(engine.starts.parked) or "nothing"
        raise UsageError(f"{name} does not wait to be resumed ({waiting} does)")
    return {"name": name}


async def _echo(engine: Engine, request: Request) -> Document:
    from gateway.control.commands import peers

    names = (await _command(request, wire.EchoCommand)).names

    async def answer() -> Document:
        return {"results": await peers.echo(engine, names)}

    return await while_connected(request.receive, answer)


async def _find(engine: Engine, request: Request) -> Document:
    from gateway.control.commands import peers

    command = await _command(request, wire.FindCommand)
    return await while_connected(request.receive, partial(peers.find, engine, command))
