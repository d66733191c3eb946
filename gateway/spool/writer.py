"""Writing one instance: fragments in, a durable Part 10 file out."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.domain import Content


class SpoolWriter:
    """One instance on its way to disk. One thread at a time; ends with `commit` or `discard`."""

    @property
    def length(self) -> int:
        """Bytes of the data set written so far."""
        raise NotImplementedError

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes, untouched. The memory is free again when this returns.

        Raises:
            SpoolFull: no room.
            SpoolIOError: the operating system refused; nothing can be committed any more.

        """
        raise NotImplementedError

    def head(self, size: int) -> bytes:
        """Return up to the first `size` bytes of the data set written so far."""
        raise NotImplementedError

    def commit(self) -> Content:
        """Make the instance durable and return where it is.

        Raises:
            SpoolFull: no room.
            SpoolIOError: a write, fsync or rename failed; the bytes were discarded.

        """
        raise NotImplementedError

    def discard(self) -> None:
        """Drop what was written. Does nothing after `commit` or a second time."""
        raise NotImplementedError
