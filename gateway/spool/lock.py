"""One gateway a state folder: an advisory lock that the operating system drops when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from gateway.core.errors import StateFolderInUse
from gateway.core.files import make_private_folder

LOCK_NAME = "gateway.lock"


class StateLock:
    """Holds the lock of `state` for as long as it is open. Use as a context manager."""

    def __init__(self, state: Path) -> None:
        """Create `state` (0700, durably) if it is not there, and lock it.

        Raises:
            StateFolderInUse: another process holds it; the message names its process id where it is known.

        """
        if make_private_folder(state):
            from gateway.spool.segments.pool import sync_folder

            sync_folder(str(state.absolute().parent))
        self._descriptor = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            by = f"the gateway with process id {owner}" if owner.isdigit() else "another gateway"
            raise StateFolderInUse(f"{state} is in use by {by}: stop it first, or give this one another state folder") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let another gateway have the folder. Closing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
