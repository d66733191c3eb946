"""The input of ``gateway send``: files, folders and zip archives become instances with deliveries, read in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.domain import InstanceIdentity
from gateway.ledger import Ledger
from gateway.ledger.instances import Recorded
from gateway.spool import Spool


class FileOutcome(StrEnum):
    """What became of one file."""

    QUEUED = "queued"
    """An instance with something to deliver."""
    SETTLED = "settled"
    """An instance that every named destination has already, or is no longer owed."""
    SKIPPED = "skipped"
    """Not an instance: the reason says what it is."""
    FAILED = "failed"
    """It could not be read or kept: the reason says why."""


@dataclass(frozen=True, slots=True)
class FileEvent:
    """What became of one file (``archive.zip!member`` within an archive)."""

    path: str
    outcome: FileOutcome
    reason: str = ""
    identity: InstanceIdentity | None = None
    instance_id: int | None = None
    length: int = 0
    queued: tuple[str, ...] = ()


def register(
    paths: Sequence[Path],
    destinations: Sequence[str],
    spool: Spool,
    ledger: Ledger,
    *,
    ae_title: str,
    recorded: Callable[[Recorded], None] = lambda _recorded: None,
    clock: Callable[[], float] = time.time,
) -> Iterator[FileEvent]:
    """Take in every instance below `paths` for `destinations`; yield one event a file, in the order of the folders.

    Files are registered where they lie, in batches; members of zip archives are spooled. Nothing is ever deleted or changed.
    What was registered before (same path, size and modification time, or same content) is only sent to destinations that
    have not settled it. Closing the iterator stops between files; what was yielded as queued stays queued.
    """
    raise NotImplementedError
