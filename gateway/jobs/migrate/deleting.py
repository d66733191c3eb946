"""Deleting from a source what every destination has been proved to hold. Blocking parts run on threads; the rest in trio.

A study is deleted once each instance that its retrieval expected is verified, by a destination that was asked for it, at every
destination it was delivered to; and only where the source, asked right before, holds nothing else under its Study Instance UID.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from functools import partial

import trio

from gateway.core.errors import GatewayError
from gateway.core.log import get_logger
from gateway.jobs.migrate.context import MigrateContext
from gateway.ledger.jobs import planning

log = get_logger()

NOT_PROVED = "the source holds instances of it that are not proved to be at every destination"

LOOK_S = 1.0
"""Between two looks at what has been proved meanwhile."""


def may_delete(held: Mapping[str, Collection[str]], proved: Collection[str]) -> bool:
    """Tell whether all that a source holds of a study, by its own identifiers, is proved to be elsewhere; pure."""
    return bool(held) and all(uids and set(uids) <= set(proved) for uids in held.values())


class Deleter:
    """Deletes from `source` what job `job_id` has moved, as it is proved to be at `destinations`, else wherever it was routed."""

    def __init__(self, context: MigrateContext, source: str, destinations: Sequence[str], job_id: int) -> None:
        self._context = context
        self._source = source
        self._destinations = destinations
        self._job_id = job_id
        self.remarks: dict[str, str] = {}
        """Study Instance UID to why it was not deleted."""

    async def run(self, moved: trio.Event) -> None:
        """Delete until everything was `moved` and nothing more can become proved by itself."""
        while True:
            over = moved.is_set()
            waits = await self._look()
            if over and not waits:
                return
            with trio.move_on_after(LOOK_S):
                await (trio.sleep_forever if over else moved.wait)()

    async def _look(self) -> bool:
        """Delete what is proved; tell whether more may become so."""
        waits = False
        for study, retrieval in await self._context.read(partial(planning.to_delete, job_id=self._job_id)):
            if study in self.remarks:
                continue
            query = partial(planning.proved, retrieval_id=retrieval, destinations=self._destinations)
            proved, waiting = await self._context.read(query)
            if waiting:
                waits = True
            else:
                await self._delete(study, proved)
        return waits

    async def _delete(self, study: str, proved: Collection[str]) -> None:
        try:
            done = await trio.to_thread.run_sync(self._delete_at_source, study, proved, limiter=self._context.threads)
        except GatewayError as error:
            self._keep(study, f"could not be deleted: {error}")
            return
        if done:
            change = partial(planning.deleted, job_id=self._job_id, study_instance_uid=study, now=self._context.clock())
            await self._context.write(change)
            log.info("study_deleted_from_source", study=study, source=self._source, job=self._job_id)
        else:
            self._keep(study, NOT_PROVED)

    def _keep(self, study: str, why: str) -> None:
        self.remarks[study] = why
        log.warning("study_not_deleted", study=study, source=self._source, job=self._job_id, reason=why)

    def _delete_at_source(self, study: str, proved: Collection[str]) -> bool:
        with closing(self._context.original(self._source)) as original:
            held = original.instances(study)
            if not may_delete(held, proved):
                return False
            original.delete(held.keys())
            return True
