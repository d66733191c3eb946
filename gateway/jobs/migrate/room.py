"""The room for what a migration would bring: in the spool, and at the destinations that say how full they may be.

Blocking; called on threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gateway.config.settings import Settings
from gateway.core.errors import GatewayError
from gateway.core.log import get_logger

log = get_logger()


@dataclass(frozen=True)
class Room:
    """Looks how full things are. `has_room` is the spool's own answer; `stored_bytes` asks a destination by its REST address."""

    settings: Settings
    has_room: Callable[[], bool]
    stored_bytes: Callable[[str], int]

    def crowded(self, destinations: Collection[str], max_used: float | None) -> str:
        """Return why nothing more is to be brought now, empty where there is room everywhere.

        `max_used` is the share of the spool's file system that may be used, from 0 to 1. No destinations are all of them.
        """
        if not self.has_room():
            return "the spool has no room"
        used = _used_share(self.settings.gateway.state)
        if max_used is not None and used > max_used:
            return f"{used:.0%} of the spool's file system is used, more than {max_used:.0%}"
        full = (self._full(name) for name in destinations or self.settings.destinations)
        return next((why for why in full if why), "")

    def _full(self, name: str) -> str:
        can = self.settings.destinations[name].can
        if can.folder is not None and can.max_used is not None and (used := _used_share(can.folder)) > can.max_used:
            return f"{used:.0%} of the file system of destination {name} is used, more than {can.max_used:.0%}"
        if can.max_stored_bytes is None:
            return ""
        try:
            stored = self.stored_bytes(name)
        except GatewayError as error:
            # It takes what it takes: a REST address that does not answer must not stop a migration over DICOM.
            log.warning("destination_size_not_known", destination=name, error=str(error))
            return ""
        if stored > can.max_stored_bytes:
            return f"destination {name} holds {stored / 1e9:.1f} GB, more than {can.max_stored_bytes / 1e9:.1f} GB"
        return ""


def _used_share(path: Path) -> float:
    """Return the used share of the file system that `path` is on, or will be."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return 1 - usage.free / usage.total
