"""The spool's folders: creating, opening, removing, sweeping and counting instances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gateway.domain import Content, InstanceIdentity, Provenance
from gateway.spool.writer import SpoolWriter


@dataclass(frozen=True, slots=True)
class SpoolUsage:
    """What the spool holds, and what its file system has left for the gateway (reserve not counted), in bytes."""

    instances: int
    stored_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def has_room(self) -> bool:
        """Tell whether more than the reserve is free."""
        return self.free_bytes > self.reserve_bytes


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """An instance found in the spool's folders, as its own file describes it."""

    identity: InstanceIdentity
    provenance: Provenance
    content: Content
    written_at: float


class OpenContent:
    """A data set open for reading (a `ByteSource`): `length` bytes from `offset` of `fileno()`. Use as a context manager."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._descriptor = descriptor
        self.offset = offset
        self.length = length

    def fileno(self) -> int:
        """Return the descriptor; read with ``os.pread``, its position is nobody's."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the descriptor."""
        raise NotImplementedError

    def __enter__(self) -> OpenContent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Spool:
    """The instances on disk below `folder`. Thread-safe."""

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        """Create the folders (0700) where they are not there yet. `reserve_bytes` stay free on the file system.

        Raises:
            SpoolIOError: the folders cannot be made or written.

        """
        raise NotImplementedError

    def create(self, identity: InstanceIdentity, provenance: Provenance) -> SpoolWriter:
        """Begin an instance.

        Raises:
            SpoolFull: not more than the reserve is free.
            SpoolIOError: the file cannot be created.

        """
        raise NotImplementedError

    def open(self, content: Content) -> OpenContent:
        """Open the data set that `content` names, spooled or in place.

        Raises:
            SpoolMissing: it is not there, or is not what it was.

        """
        raise NotImplementedError

    def remove(self, location: str) -> bool:
        """Remove spooled bytes; True where they were there. A file sent in place is never touched.

        Raises:
            SpoolIOError: the operating system refused.

        """
        raise NotImplementedError

    def locations(self) -> Iterator[tuple[str, list[str]]]:
        """Yield, for each folder of instances, the prefix that its locations share and the sorted locations in it."""
        raise NotImplementedError

    def describe(self, location: str) -> SpoolEntry:
        """Read a spooled file's own account of itself and check its bytes against it.

        Raises:
            SpoolMissing: it is not there, is truncated, or its bytes are not what was written.

        """
        raise NotImplementedError

    def quarantine(self, location: str) -> Path:
        """Move a spooled file that cannot be trusted to ``corrupt/`` and return its new path."""
        raise NotImplementedError

    def sweep(self) -> int:
        """Remove the partial files that a crash left, and count what is kept. To be called once, before any `create`."""
        raise NotImplementedError

    def usage(self) -> SpoolUsage:
        """Return what is held and what is free."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Tell whether an instance can be taken now."""
        raise NotImplementedError
