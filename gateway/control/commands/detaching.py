"""Pulls and sends as they are asked for: followed by their client, or left to the gateway (``detach``). Runs on trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from pydantic import ValidationError

from gateway.app.engine import Engine
from gateway.control.commands import pulling, sending
from gateway.control.commands.pulling import needs_everything
from gateway.control.server import Emit
from gateway.control.wire import Document, Message, PullCommand, SendCommand, Summary, encode
from gateway.core.errors import GatewayError
from gateway.core.log import get_logger
from gateway.ledger.jobs.detached import DetachedJob, DetachedKind

log = get_logger()


async def pull(engine: Engine, command: PullCommand, emit: Emit) -> None:
    """Pull, as `gateway.control.commands.pulling.pull`, or leave it to the gateway. Raises what that raises."""
    if not command.detach:
        await pulling.pull(engine, command, emit)
        return
    pulling.request_of(engine.settings, command)
    await _leave(engine, "pull", command, emit)


async def send(engine: Engine, command: SendCommand, emit: Emit) -> None:
    """Send, as `gateway.control.commands.sending.send`, or leave it to the gateway. Raises what that raises."""
    if not command.detach:
        await sending.send(engine, command, emit)
        return
    sending.existing(command.paths)
    sending.possible(engine.settings, command.to)
    await _leave(engine, "send", command, emit)


async def _leave(engine: Engine, kind: DetachedKind, command: PullCommand | SendCommand, emit: Emit) -> None:
    needs_everything(engine)
    criteria = command.model_copy(update={"detach": False}).model_dump_json()
    job_id = await _begin(engine, kind, criteria)
    await emit(Summary({"detached": True, "job_id": job_id}))


async def _begin(engine: Engine, kind: DetachedKind, criteria: str) -> int:
    """Begin a command that nobody waits for.

    Raises:
        UsageError: it is running already.
        ValidationError: another version of the gateway wrote `criteria` down.
    """
    if kind == "pull":
        work = partial(pulling.pull, engine, PullCommand.model_validate_json(criteria))
    else:
        work = partial(sending.send, engine, SendCommand.model_validate_json(criteria))
    return await engine.detached.start(kind, criteria, partial(_summed_up, work))


async def _summed_up(work: Callable[[Emit], Awaitable[None]]) -> Document:
    """Do `work`, and return the summary that it ends with."""
    summary: Document = {}

    async def tell(message: Message) -> None:
        if isinstance(message, Summary):
            summary.update(encode(message))

    await work(tell)
    return summary


async def carry_on(engine: Engine) -> None:
    """Carry on what was left to an earlier process and did not come to its end."""
    for job in await engine.detached.jobs():
        if job.detached and job.state != "done" and job.id not in engine.detached.running:
            try:
                await resume(engine, job)
            except (GatewayError, ValidationError) as error:
                log.error("detached_not_carried_on", job=job.id, error=type(error).__name__)


async def resume(engine: Engine, job: DetachedJob) -> None:
    """Begin a command again that was left to the gateway; what is done is not done again. Raises as `_begin` does."""
    await _begin(engine, job.kind, job.criteria)
