"""The values that the spool gives to others: an open data set, and an instance as its own head describes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import xxhash

from gateway.core.domain import Content, InstanceIdentity, Provenance
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.spool.segments import sealing

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpoolUsage:
    """The size of the spool's contents, and the room left on its file system (the reserve included), in bytes.

    `stored_bytes` are those of the instances; `segment_bytes` is what the log's segments occupy, with their unused room and what
    waits to be freed; `free_bytes` does not count the room of spare segments, which is given up when it is needed.
    """

    instances: int
    stored_bytes: int
    segment_bytes: int
    free_bytes: int
    spare_bytes: int
    reserve_bytes: int

    @property
    def has_room(self) -> bool:
        """Tell whether more than the reserve is free."""
        return self.free_bytes + self.spare_bytes > self.reserve_bytes


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """An instance found in the spool, as its own head describes it. `written_at` is in UTC seconds since the epoch."""

    identity: InstanceIdentity
    provenance: Provenance
    content: Content
    written_at: float


class OpenContent:
    """A data set open for reading (a `ByteSource`): `length` bytes from `offset` of `fileno()`. Use as a context manager.

    The Part 10 file that it belongs to begins at `start`.
    """

    def __init__(
        self, descriptor: int, offset: int, length: int, *, start: int = 0, closed: Callable[[int], None] = os.close
    ) -> None:
        self._descriptor = descriptor
        self._closed = closed
        self.start = start
        self.offset = offset
        self.length = length

    def fileno(self) -> int:
        """Return the descriptor; read with ``os.pread``, its position is nobody's."""
        return self._descriptor

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` of the data set.

        Raises:
            SpoolIOError: they cannot be read.

        """
        try:
            return os.pread(self._descriptor, max(0, min(size, self.length - offset)), self.offset + offset)
        except OSError as error:
            raise SpoolIOError(f"a data set cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file. Closing twice does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._closed(descriptor)

    def __enter__(self) -> OpenContent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def described(descriptor: int, location: str, start: int, size: int, written_at: float) -> SpoolEntry:
    """Read the account that the Part 10 file of `size` bytes at `start` gives of itself, and check its bytes against it.

    Raises:
        SpoolMissing: it is not whole.
        OSError: it cannot be read.

    """
    head = sealing.decode(os.pread(descriptor, sealing.MAX_HEAD_LENGTH, start))
    if head is None:
        raise SpoolMissing("the spooled instance has no finished head")
    if not head.length:
        raise SpoolMissing("the spooled instance has no data set")
    if head.offset + head.length != size:
        raise SpoolMissing(f"the spooled instance has {size} bytes, not {head.offset + head.length}")
    if digest_of(descriptor, start + head.offset, head.length) != head.digest:
        raise SpoolMissing("the spooled bytes are not what was written")
    return SpoolEntry(head.identity, head.provenance, Content(location, start + head.offset, head.length, head.digest), written_at)


def digest_of(descriptor: int, offset: int, length: int) -> str:
    """Return the XXH3-128 digest of `length` bytes from `offset`, or of as many as there are."""
    digest = xxhash.xxh3_128()
    end = offset + length
    while offset < end and (block := os.pread(descriptor, min(_READ_BYTES, end - offset), offset)):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def copy_bytes(source: int, offset: int, length: int, target: int) -> None:
    """Append `length` bytes from `offset` of the file `source`, or as many as there are, to the file `target`. Raises OSError."""
    end = offset + length
    while offset < end and (block := os.pread(source, min(_READ_BYTES, end - offset), offset)):
        offset += len(block)
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(target, rest) :]
