"""The spool's folders: creating, opening, removing, sweeping and counting instances."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import structlog
import xxhash

from gateway.domain import Content, InstanceIdentity, Provenance
from gateway.errors import SpoolFull, SpoolIOError, SpoolMissing
from gateway.files import make_private_folder
from gateway.spool import layout, part10
from gateway.spool.writer import SpoolWriter, sync_folder

_log = structlog.get_logger()

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpoolUsage:
    """What the spool holds, and what its file system has left (the reserve included), in bytes."""

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
        """Close the descriptor. Closing twice does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

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
        self._reserve_bytes = reserve_bytes
        self._counting = threading.Lock()
        self._count = 0
        self._bytes = 0
        try:
            if make_private_folder(folder):
                sync_folder(str(folder.absolute().parent))
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _make_folders(folder, self._root)
        except OSError as error:
            raise SpoolIOError(f"{folder}: {error.strerror}") from error
        self._folder = folder

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the spool's folder; nothing may be written any more. Closing twice does nothing."""
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    def create(self, identity: InstanceIdentity, provenance: Provenance) -> SpoolWriter:
        """Begin an instance.

        Raises:
            SpoolFull: not more than the reserve is free.
            SpoolIOError: the file cannot be created.

        """
        self._check_room()
        return SpoolWriter(self._root, identity, provenance, check_room=self._check_room, committed=self._add)

    def open(self, content: Content) -> OpenContent:
        """Open the data set that `content` names, spooled or in place.

        Raises:
            SpoolMissing: it is not there, or is not what it was.
            SpoolIOError: the operating system refused.

        """
        token = layout.token_of(content.location)
        named = None if token else layout.in_place(content.location)
        if token is None and named is None:
            raise SpoolMissing("a location that names nothing")
        path = layout.relative_path(token) if token else str(named.path if named else "")
        descriptor, status = self._open(path)
        end = content.offset + content.length
        if named is None:
            unchanged = status.st_size == end
        else:
            unchanged = status.st_size == named.size >= end and status.st_mtime_ns == named.modified_ns
        if not unchanged:
            os.close(descriptor)
            raise SpoolMissing("the spooled file is truncated" if token else "the file changed since it was registered")
        return OpenContent(descriptor, content.offset, content.length)

    def remove(self, location: str) -> bool:
        """Remove spooled bytes; True where they were there. A file sent in place is never touched.

        Raises:
            SpoolIOError: the operating system refused.

        """
        token = layout.token_of(location)
        if token is None:
            return False
        path = layout.relative_path(token)
        try:
            size = os.stat(path, dir_fd=self._root).st_size
            os.unlink(path, dir_fd=self._root)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolIOError(f"{location} cannot be removed: {error.strerror}") from error
        self._add(-size, instances=-1)
        return True

    def locations(self) -> Iterator[tuple[str, list[str]]]:
        """Yield, for each folder of instances, the prefix that its locations share and the sorted locations in it.

        Raises:
            SpoolIOError: a folder cannot be read.

        """
        for bucket in layout.BUCKETS:
            try:
                names = sorted(path.name for path in (self._folder / layout.INSTANCES / bucket).iterdir())
            except OSError as error:
                raise SpoolIOError(f"{layout.INSTANCES}/{bucket}: {error.strerror}") from error
            tokens = [token for name in names if (token := layout.token_of_file(name)) and token.startswith(bucket)]
            if len(tokens) != len(names):
                _log.warning("spool_foreign_files", folder=bucket, count=len(names) - len(tokens))
            yield layout.bucket_prefix(bucket), [layout.location_of(token) for token in tokens]

    def describe(self, location: str) -> SpoolEntry:
        """Read a spooled file's own account of itself and check its bytes against it.

        Raises:
            SpoolMissing: it is not there, is truncated, or its bytes are not what was written.
            SpoolIOError: it cannot be read.

        """
        token = layout.token_of(location)
        if token is None:
            raise SpoolMissing("no spooled location")
        descriptor, status = self._open(layout.relative_path(token))
        try:
            head = part10.decode(os.pread(descriptor, part10.MAX_HEAD_LENGTH, 0))
            if head is None:
                raise SpoolMissing("the spooled file has no finished head")
            if head.offset + head.length != status.st_size:
                raise SpoolMissing(f"the spooled file has {status.st_size} bytes, not {head.offset + head.length}")
            if digest_of(descriptor, head.offset, head.length) != head.digest:
                raise SpoolMissing("the spooled bytes are not what was written")
        except OSError as error:
            raise SpoolIOError(f"{location} cannot be read: {error.strerror}") from error
        finally:
            os.close(descriptor)
        content = Content(location, head.offset, head.length, head.digest)
        return SpoolEntry(head.identity, head.provenance, content, status.st_mtime)

    def quarantine(self, location: str) -> Path:
        """Move a spooled file that cannot be trusted to ``corrupt/`` and return its new path.

        Raises:
            SpoolIOError: the operating system refused.

        """
        token = layout.token_of(location)
        assert token is not None
        kept = f"{layout.CORRUPT}/{token}{layout.SUFFIX}"
        try:
            os.rename(layout.relative_path(token), kept, src_dir_fd=self._root, dst_dir_fd=self._root)
            size = os.stat(kept, dir_fd=self._root).st_size
        except OSError as error:
            raise SpoolIOError(f"{location} cannot be moved: {error.strerror}") from error
        self._add(-size, instances=-1)
        return self._folder / kept

    def sweep(self) -> int:
        """Remove the partial files that a crash left, and count what is kept. To be called once, before any `create`.

        Raises:
            SpoolIOError: the operating system refused.

        """
        try:
            partial = list((self._folder / layout.INCOMING).iterdir())
            for path in partial:
                path.unlink()
            sizes = [size for bucket in layout.BUCKETS for size in _sizes(self._folder / layout.INSTANCES / bucket)]
        except OSError as error:
            raise SpoolIOError(f"{error.filename}: {error.strerror}") from error
        with self._counting:
            self._count, self._bytes = len(sizes), sum(sizes)
        return len(partial)

    def usage(self) -> SpoolUsage:
        """Return what is held and what is free. Raises SpoolIOError."""
        free = self._free_bytes()
        with self._counting:
            return SpoolUsage(self._count, self._bytes, free, self._reserve_bytes)

    def has_room(self) -> bool:
        """Tell whether an instance can be taken now. Raises SpoolIOError where that cannot be told."""
        return self._free_bytes() > self._reserve_bytes

    def _open(self, path: str) -> tuple[int, os.stat_result]:
        try:
            # A file in place may have become a FIFO meanwhile: opening must not wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._root)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SpoolMissing("the file is not there") from error
        except OSError as error:
            raise SpoolIOError(f"the file cannot be opened: {error.strerror}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise SpoolMissing("not a regular file")
        return descriptor, status

    def _free_bytes(self) -> int:
        try:
            status = os.fstatvfs(self._root)
        except OSError as error:
            raise SpoolIOError(f"the spool's file system does not answer: {error.strerror}") from error
        return status.f_bavail * status.f_frsize

    def _check_room(self) -> None:
        if not self.has_room():
            raise SpoolFull(f"not more than the reserve of {self._reserve_bytes} bytes is free")

    def _add(self, size: int, *, instances: int = 1) -> None:
        with self._counting:
            self._count += instances
            self._bytes += size


def digest_of(descriptor: int, offset: int, length: int) -> str:
    """Return the XXH3-128 digest of `length` bytes from `offset`, or of as many as there are."""
    digest = xxhash.xxh3_128()
    end = offset + length
    while offset < end and (block := os.pread(descriptor, min(_READ_BYTES, end - offset), offset)):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def _make_folders(folder: Path, root: int) -> None:
    parents = (layout.INCOMING, layout.INSTANCES, layout.CORRUPT)
    missing = [name for name in parents if not (folder / name).is_dir()]
    missing += [name for bucket in layout.BUCKETS if not (folder / (name := f"{layout.INSTANCES}/{bucket}")).is_dir()]
    for name in missing:
        make_private_folder(folder / name)
    if missing:
        sync_folder(layout.INSTANCES, root)
        os.fsync(root)


def _sizes(folder: Path) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.stat(follow_symlinks=False).st_size
