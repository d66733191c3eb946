"""Asking a source for a target, by C-MOVE or by C-GET, and what came of it. Runs in trio.

A C-MOVE is one request. A C-GET is as many as it takes: each proposes the presentation contexts in which the source may send, and
what did not come in one is asked for in the next.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial

from gateway.association.dimse.services import AssociationInfo
from gateway.association.scu.offers import offers
from gateway.association.scu.requestor import next_message_id
from gateway.association.upper.contexts import ProposedContext
from gateway.core.errors import NoPresentationContext
from gateway.core.log import get_logger
from gateway.retrieve import listing
from gateway.retrieve.arrivals.correlate import Watch
from gateway.retrieve.context import RetrieveContext, Source
from gateway.retrieve.operations import c_get
from gateway.retrieve.operations.method import Method
from gateway.retrieve.recovery import AcceptanceOrder, End, Target
from gateway.retrieve.source.associations import SourceAssociations
from gateway.retrieve.source.call import GET_QUIET_S, Move, Moved
from gateway.retrieve.verdict.tally import Expectation

log = get_logger()


@dataclass(frozen=True)
class Asking:
    """Asks `source` for what `watch` waits for; `stalled` says that it stopped in the middle of an earlier C-GET of the study."""

    context: RetrieveContext
    source: Source
    watch: Watch
    stalled: bool = False

    async def move(self, target: Target) -> Moved:
        """Carry out one C-MOVE of `target`."""
        message_id = self._message_id()
        identifier, destination = listing.move_identifier(target), self.context.ae_title
        move = Move(
            self.source.associations,
            lambda requestor: requestor.move(identifier, destination_ae=destination, message_id=message_id),
            message_id=message_id,
            watch=self.watch,
        )
        return await self._carried_out(move, message_id, target, Method.MOVE)

    async def get(self, target: Target, order: AcceptanceOrder, expectation: Expectation) -> Moved:
        """Carry out the C-GETs of `target`, up to the first that the source does not carry out; return the last."""
        last = Moved(End.ANSWERED, method=Method.GET)
        for part in c_get.parts(target, expectation):
            for number, contexts in enumerate(offers(part.sop_classes, self.source.syntaxes(order))):
                for left in c_get.remaining(part, self.watch.received, target, expectation):
                    got = await self._get_once(left, contexts)
                    if number and isinstance(got.error, NoPresentationContext):
                        break  # of what is offered last a source may know nothing
                    last = got
                    if got.end is not End.ANSWERED:
                        return got
        return last

    async def _get_once(self, target: Target, contexts: tuple[ProposedContext, ...]) -> Moved:
        message_id, identifier = self._message_id(), listing.move_identifier(target)
        heard, info = c_get.Heard(self.context.storage()), self._info()
        get = Move(
            SourceAssociations(partial(self.source.connect, contexts), keeps=False),
            lambda requestor: requestor.get(identifier, storage=heard, info=info, message_id=message_id),
            message_id=message_id,
            watch=self.watch,
            heard=lambda: heard.last,
            begun_quiet_s=GET_QUIET_S,
        )
        return await self._carried_out(get, message_id, target, Method.GET)

    def _info(self) -> AssociationInfo:
        """Return who sends on an association of a C-GET: the source, as if it had called us."""
        table = self.source.table
        return AssociationInfo(secrets.token_hex(6), table.ae_title, self.context.ae_title, table.host, source=self.source.name)

    def _message_id(self) -> int:
        """Return a Message ID under which what comes is counted to the study."""
        message_id = next_message_id()
        self.context.arrivals.register(self.watch, message_id)
        return message_id

    async def _carried_out(self, move: Move, message_id: int, target: Target, method: Method) -> Moved:
        before = self.watch.arrivals
        quiet_s = self.source.table.progress_timeout_s
        if self.stalled and method is Method.GET:
            quiet_s = min(quiet_s, GET_QUIET_S)
        moved = replace(await move.result(self.source.retrieving, quiet_s), method=method)
        # Instances that came before the final response must not count as come after it.
        await self.context.caught_up()
        if moved.end is End.BUSY and self.watch.arrivals > before:
            moved = replace(moved, end=End.ANSWERED)  # it sent some, and says nothing of how many: it was not too busy to begin
        log.debug(
            "move_ended",
            study=target.study,
            source=self.source.name,
            by=str(method),
            level=str(target.level),
            message_id=message_id,
            end=str(moved.end),
            status=None if moved.last is None else f"{moved.last.status:04X}",
            claimed=moved.claimed,
            failed=moved.failed,
            arrived=self.watch.arrivals,
        )
        return moved
