"""Writing one instance: fragments in, a durable Part 10 file out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

import structlog
import xxhash

from gateway.domain import Content, InstanceIdentity, Provenance
from gateway.errors import SpoolError, SpoolFull, SpoolIOError
from gateway.spool import layout, part10

_log = structlog.get_logger()

ROOM_INTERVAL_BYTES = 64 * 1024 * 1024
"""How much one instance may grow between two looks at the free space."""

_MAX_VECTOR = 1024
"""Linux takes at most this many buffers in one writev (IOV_MAX)."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_error(what: str, error: OSError) -> SpoolError:
    """Return the spool's error for the operating system's `error` while doing `what`."""
    kind = SpoolFull if error.errno in _NO_ROOM else SpoolIOError
    return kind(f"{what}: {error.strerror or error.__class__.__name__}")


class SpoolWriter:
    """One instance on its way to disk. One thread at a time; ends with `commit` or `discard`."""

    def __init__(
        self,
        root: int,
        identity: InstanceIdentity,
        provenance: Provenance,
        *,
        check_room: Callable[[], None],
        committed: Callable[[int], None],
    ) -> None:
        """Create the partial file below the folder open as `root`.

        `check_room` raises `SpoolFull` where there is none; `committed` hears of the size of the durable file in bytes.

        Raises:
            SpoolFull: no room.
            SpoolIOError: the file cannot be created.

        """
        self._root = root
        self._check_room = check_room
        self._committed = committed
        self._token = layout.new_token()
        self._partial = layout.partial_path(self._token)
        self._head, self._seal_at = part10.encode(identity, provenance)
        self._head_written = False
        self._digest = xxhash.xxh3_128()
        self._length = 0
        self._next_check = ROOM_INTERVAL_BYTES
        self._whole = True
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._partial, flags, 0o600, dir_fd=root)
        except OSError as error:
            raise storage_error("an instance cannot be begun", error) from error

    @property
    def length(self) -> int:
        """Bytes of the data set written so far."""
        return self._length

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Append the data set's next bytes, untouched. The memory is free again when this returns.

        Raises:
            SpoolFull: no room.
            SpoolIOError: the operating system refused; nothing can be committed any more.

        """
        for fragment in fragments:
            self._digest.update(fragment)
            self._length += len(fragment)
        self._append(fragments)
        if self._length >= self._next_check:
            self._next_check = self._length + ROOM_INTERVAL_BYTES
            self._check_room()

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` of the data set written so far.

        Raises:
            SpoolIOError: they cannot be read back.

        """
        try:
            return os.pread(self._descriptor, size, len(self._head) + offset)
        except OSError as error:
            raise storage_error("an instance cannot be read back", error) from error

    def commit(self) -> Content:
        """Make the instance durable and return where it is.

        Raises:
            SpoolFull: no room.
            SpoolIOError: a write, fsync or rename failed; the bytes were discarded.

        """
        if not self._whole:
            self.discard()
            raise SpoolIOError("an earlier write of this instance failed")
        digest = self._digest.hexdigest()
        try:
            self._append(())
            os.pwrite(self._descriptor, part10.seal(digest, self._length), self._seal_at)
            # A failed fsync is final: the kernel may have dropped the pages and report success to a second one.
            os.fsync(self._descriptor)
            self._publish()
        except OSError as error:
            self.discard()
            raise storage_error("an instance cannot be made durable", error) from error
        except SpoolError:
            self.discard()
            raise
        self._close()
        self._committed(len(self._head) + self._length)
        return Content(layout.location_of(self._token), len(self._head), self._length, digest)

    def discard(self) -> None:
        """Drop what was written. Does nothing after `commit` or a second time."""
        if self._descriptor < 0:
            return
        self._close()
        self._unlink(self._partial)

    def _append(self, fragments: Sequence[memoryview]) -> None:
        buffers: list[memoryview] = list(fragments)
        if not self._head_written:
            buffers.insert(0, memoryview(self._head))
            self._head_written = True
        try:
            for start in range(0, len(buffers), _MAX_VECTOR):
                _write_all(self._descriptor, buffers[start : start + _MAX_VECTOR])
        except OSError as error:
            self._whole = False
            raise storage_error("an instance cannot be written", error) from error

    def _publish(self) -> None:
        final = layout.relative_path(self._token)
        os.rename(self._partial, final, src_dir_fd=self._root, dst_dir_fd=self._root)
        try:
            sync_folder(os.path.dirname(final), self._root)  # noqa: PTH120 - relative to a descriptor
        except OSError:
            self._unlink(final)
            raise

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path, dir_fd=self._root)
        except FileNotFoundError:
            return
        except OSError as error:
            # What stays is a partial file that the next start sweeps, or a whole one that it adopts.
            _log.warning("spool_file_left", file=path, error=error.strerror)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.close(descriptor)
        except OSError as error:
            _log.warning("spool_close_failed", error=error.strerror)


def sync_folder(path: str, root: int | None = None) -> None:
    """Make the names in the folder `path`, below the folder open as `root` where one is given, durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_all(descriptor: int, buffers: list[memoryview]) -> None:
    while buffers:
        written = os.writev(descriptor, buffers)
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if written:
            buffers[0] = buffers[0][written:]
