"""Pulls and sends that were left to the gateway: they run in its own nursery, and are carried on at its next start. Runs on trio.

Its summary is kept in the folder of reports (``gateway jobs report``). One that fails is a failed command, never a crashed gateway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio
from sqlalchemy import Connection

from gateway.core.errors import GatewayError, GatewayStopping, UsageError
from gateway.core.files import make_private_folder, write_file
from gateway.core.log import get_logger
from gateway.core.tasks.background import Background
from gateway.ledger import Ledger
from gateway.ledger.jobs import detached
from gateway.ledger.jobs.detached import DetachedJob, DetachedKind
from gateway.ledger.jobs.retrievals import JobState

log = get_logger()

REPORTS_NAME = "reports"
"""The folder of reports in the state folder."""

Document = dict[str, Any]
"""The summary of a command, as plain data."""

Work = Callable[[], Awaitable[Document]]
"""Does what was left, and returns its summary; raises GatewayStopping where the gateway stops meanwhile."""


class Detached(Background):
    """The commands that run without their clients; `running` are those under way, by the id of their job."""

    def __init__(self, ledger: Ledger, reports: Path) -> None:
        """`reports` is the folder for their summaries, made when it is needed."""
        self.running: dict[int, trio.CancelScope] = {}
        self._ledger = ledger
        self._reports = reports

    async def start(self, kind: DetachedKind, criteria: str, work: Work) -> int:
        """Begin a command that nobody waits for, and return the id of its job.

        Raises:
            UsageError: the same one is running, or this is no whole gateway.
            LedgerError: the ledger cannot be used.
        """
        if self._nursery is None:
            raise UsageError("a whole gateway is needed to leave something to")
        job_id: int = await self._write(partial(detached.leave, kind=kind, criteria=criteria, now=time.time()))
        if job_id in self.running:
            raise UsageError(f"the same {kind} is running already (gateway jobs show {job_id})")
        self.running[job_id] = trio.CancelScope()
        self._nursery.start_soon(self._root, job_id, kind, work)
        return job_id

    async def jobs(self) -> list[DetachedJob]:
        """Return the commands that were ever left to the gateway, the newest first."""
        return list(await trio.to_thread.run_sync(self._ledger.ask, detached.detached_jobs))

    async def job(self, job_id: int) -> DetachedJob | None:
        """Return the one with the id, if there is one."""
        found = await trio.to_thread.run_sync(self._ledger.ask, partial(detached.detached_jobs, job_id=job_id))
        return found[0] if found else None

    async def pause(self, job_id: int) -> None:
        """Stop one between instances; it is not carried on by itself."""
        if job_id in self.running:
            self.running[job_id].cancel()
        else:
            await self._end(job_id, "stopped")

    async def _root(self, job_id: int, kind: DetachedKind, work: Work) -> None:
        """Run one to its end."""
        bound = log.bind(job=job_id, kind=kind)
        state: JobState = "stopped"
        # Unless it ends or fails by itself, or somebody pauses it, the next start carries it on.
        carried_on = True

        bound.info("detached_started")
        try:
            with self.running[job_id]:
                summary = await work()
                await trio.to_thread.run_sync(self._keep, job_id, summary)
                state = "done"
                bound.info("detached_ended", done=summary.get("done"), unrouted=summary.get("unrouted"))
            carried_on = False
        except GatewayStopping:
            bound.info("detached_stopped")
        except GatewayError as error:
            carried_on = False
            bound.error("detached_failed", error=str(error))
        except Exception:  # noqa: BLE001 - the root of a task: what one command trips over must not end the gateway
            carried_on = False
            bound.exception("detached_failed")
        finally:
            self.running.pop(job_id, None)
            with trio.CancelScope(shield=True):
                await self._end(job_id, state, carried_on=carried_on)

    def summary(self, job_id: int) -> Document | None:
        """Return what a command came to, None where it has not ended. Blocks.

        Raises:
            UsageError: what was written cannot be read.
        """
        try:
            return dict(json.loads(self._report(job_id).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._report(job_id)} cannot be read ({type(error).__name__})") from error

    def _keep(self, job_id: int, summary: Mapping[str, Any]) -> None:
        try:
            make_private_folder(self._reports)
            write_file(self._report(job_id), json.dumps(summary).encode())
        except OSError as error:
            log.error("report_not_written", job=job_id, error=error.strerror)

    def _report(self, job_id: int) -> Path:
        return self._reports / f"job-{job_id}.json"

    async def _end(self, job_id: int, state: JobState, *, carried_on: bool = False) -> None:
        try:
            await self._write(partial(detached.end, job_id=job_id, state=state, carried_on=carried_on, now=time.time()))
        except GatewayError as error:
            log.warning("detached_not_recorded", job=job_id, error=str(error))

    async def _write(self, change: Callable[[Connection], Any]) -> Any:
        return await trio.to_thread.run_sync(self._ledger.write, change)
