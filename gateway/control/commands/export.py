"""``POST /queue/export``: plain DICOM files of what the spool holds, a stream of events that ends with what became of each."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import trio

from gateway.app.engine import Engine
from gateway.control.commands.batches import next_batch
from gateway.control.events import FilesWritten
from gateway.control.server import Emit
from gateway.control.wire import Document, QueueExport, Summary
from gateway.core.domain import Role
from gateway.core.errors import UsageError
from gateway.intake import Exported, ExportOutcome, export

SHOWN_FAILURES = 1000


@dataclass
class _Done:
    counts: Counter[ExportOutcome] = field(default_factory=Counter)
    size_bytes: int = 0
    failed: list[Exported] = field(default_factory=list)

    def add(self, batch: list[Exported]) -> None:
        for one in batch:
            self.counts[one.outcome] += 1
            self.size_bytes += one.length
            if one.outcome is ExportOutcome.FAILED and len(self.failed) < SHOWN_FAILURES:
                self.failed.append(one)

    def counted(self) -> Document:
        counts = {str(outcome): self.counts[outcome] for outcome in ExportOutcome}
        return {"counts": counts, "instances": self.counts.total(), "size_bytes": self.size_bytes}


async def export_instances(engine: Engine, command: QueueExport, emit: Emit) -> None:
    """Export what is selected, streaming how far it is. Works with a whole gateway and with a desk.

    Raises:
        UsageError: the folder is no absolute path, or cannot be made.
        GatewayStopping: the gateway is told to stop meanwhile.
        LedgerUnavailable: what came is not recorded in time.

    """
    folder = Path(command.to)
    if not folder.is_absolute():
        raise UsageError(f"{folder} is no absolute path")
    selection = command.where.selection()
    desk = engine.role is Role.DESK
    async with engine.jobs.running():
        await trio.to_thread.run_sync(engine.recorder.flush)
        done = _Done()
        with closing(export(engine.spool, engine.ledger, selection, folder, unrecorded=desk)) as events:
            while batch := await next_batch(events):
                done.add(batch)
                await emit(FilesWritten(**done.counted()))
        failures = [asdict(one) for one in done.failed]
        nothing = not done.counts and not selection.is_everything
        whole = not (done.counts[ExportOutcome.FAILED] or nothing)
        await emit(Summary({**done.counted(), "failed": failures, "done": whole}))
