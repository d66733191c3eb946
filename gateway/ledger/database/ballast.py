"""Room that the ledger keeps for itself: a file of empty blocks that is given up when the disk is full.

A full disk is emptied by recording that deliveries are through and bytes may go, and that needs room too: a transaction is written
to the write-ahead log first. So the ledger's file system always has a few megabytes that nobody else can take, and an inode. While
they are given up, the spool leaves that much more free (`missing_bytes`), and once there is room they are taken back. Thread-safe.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.core.log import get_logger

_log = get_logger()

BALLAST_BYTES = 16 * 1024 * 1024
"""The growth of the write-ahead log between two checkpoints."""

_PART = 8
"""No more than one part in this many of a small file system."""

_allocate: Callable[[int, int, int], None] = getattr(
    os, "posix_fallocate", lambda descriptor, _at, size: os.ftruncate(descriptor, size)
)
"""Only Linux keeps the room; elsewhere the file is a promise."""


class Ballast:
    """The file at `path`; there is none until `take`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._size = 0
        self._there = False

    @property
    def missing_bytes(self) -> int:
        """The bytes that are to be left free for it, because it was given up."""
        return 0 if self._there else self._size

    def take(self) -> None:
        """Take the room, where it is not taken already and as much again stays free. Tries again the next time where it cannot."""
        with self._lock:
            if self._there:
                return
            with suppress(OSError):
                status = os.statvfs(self._path.parent)
                self._size = min(BALLAST_BYTES, status.f_blocks * status.f_frsize // _PART)
                if self._path.exists() and self._path.stat().st_blocks * 512 >= self._size:
                    self._there = True
                elif status.f_bavail * status.f_frsize >= 2 * self._size:
                    self._there = self._make()

    def give_up(self) -> bool:
        """Give the room up; tells whether there was any."""
        with self._lock:
            self._there = False
            try:
                self._path.unlink()
            except OSError:
                return False
        _log.warning("ledger_uses_its_reserve", bytes=self._size)
        return True

    def _make(self) -> bool:
        """Make the file, all of it or none."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, 0, max(1, self._size))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._path.unlink(missing_ok=True)
                return False
            # The file system does not know how to set room aside: then nobody waits for it.
        finally:
            os.close(descriptor)
        return True
