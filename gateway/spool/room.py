"""The room that may still be written: the reserve stays free on the spool's file system."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from gateway.core.errors import SpoolFull, SpoolIOError

LOOK_EVERY_BYTES = 16 * 1024 * 1024
"""The bytes written between two looks at the free space, for others write to the same file system too."""


class Room:
    """The free space behind the folder open as `root`. Thread-safe."""

    def __init__(self, root: int, reserve_bytes: int, withheld: Callable[[], int] = lambda: 0) -> None:
        """Keep `reserve_bytes` free, and what `withheld` says that others have to get back."""
        self._root = root
        self.reserve_bytes = reserve_bytes
        self._withheld = withheld
        self._lock = threading.Lock()
        self._unlooked = LOOK_EVERY_BYTES
        self._short = False

    def free_bytes(self) -> int:
        """Return what the file system has left, the reserve included. Raises SpoolIOError."""
        try:
            status = os.fstatvfs(self._root)
        except OSError as error:
            raise SpoolIOError(f"the spool's file system does not answer: {error.strerror}") from error
        return status.f_bavail * status.f_frsize

    def spare_bytes(self) -> int:
        """Return what is free beyond the reserve, negative where that is short of it. Raises SpoolIOError."""
        return self.free_bytes() - self.kept_free_bytes

    @property
    def kept_free_bytes(self) -> int:
        """The reserve, and what is withheld."""
        return self.reserve_bytes + self._withheld()

    @property
    def short(self) -> bool:
        """True from a look that found no room until one that found some."""
        return self._short

    def ran_short(self, so: str) -> SpoolFull:
        """Note that there is no room, and return the error that says so."""
        self._short = True
        return SpoolFull(f"not more than the reserve of {self.reserve_bytes} bytes {so}")

    def written(self, size: int) -> bool:
        """Note that `size` bytes were written; tells whether it is time to `check`."""
        with self._lock:
            self._unlooked += size
            return self._unlooked >= LOOK_EVERY_BYTES

    def check(self) -> None:
        """Look at the free space now. While it is short, every `written` asks for another look.

        Raises:
            SpoolFull: not more than the reserve is free.
            SpoolIOError: it cannot be told.

        """
        if self.spare_bytes() <= 0:
            raise self.ran_short("is free")
        self._short = False
        with self._lock:
            self._unlooked = 0
