"""Instances in a file of their own: what was moved out of the log, or written before there was one; and files sent in place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.core.domain import Content
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.core.files import make_private_folder, remove_files
from gateway.core.log import get_logger
from gateway.spool import layout
from gateway.spool.content import OpenContent, SpoolEntry, copy_bytes, described
from gateway.spool.errors import storage_error
from gateway.spool.segments.pool import sync_folder

_log = get_logger()


class SingleFiles:
    """The files below ``instances``, ``incoming`` and ``corrupt`` of the spool's `folder`, open as `root`. Thread-safe."""

    def __init__(self, folder: Path, root: int) -> None:
        self._folder = folder
        self._root = root
        # Folders in which removals may not be durable yet; an earlier process may have left some in any of them.
        self._unsynced = {f"{layout.INSTANCES}/{bucket}" for bucket in layout.BUCKETS}

    def make_folders(self) -> None:
        """Make the folders, 0700, durably. Raises OSError."""
        parents = (layout.SEGMENTS, layout.INCOMING, layout.INSTANCES, layout.CORRUPT)
        missing = [name for name in parents if not (self._folder / name).is_dir()]
        buckets = (f"{layout.INSTANCES}/{bucket}" for bucket in layout.BUCKETS)
        missing += [name for name in buckets if not (self._folder / name).is_dir()]
        for name in missing:
            make_private_folder(self._folder / name)
        if missing:
            sync_folder(layout.INSTANCES, self._root)
            os.fsync(self._root)

    def open(self, content: Content) -> OpenContent:
        """Open the data set that `content` names. Raises SpoolMissing, SpoolIOError."""
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

    def remove(self, token: str) -> int:
        """Remove the file and return its bytes, 0 where it was not there. Raises SpoolIOError."""
        path = layout.relative_path(token)
        try:
            size = os.stat(path, dir_fd=self._root).st_size
            os.unlink(path, dir_fd=self._root)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise SpoolIOError(f"{path} cannot be removed: {error.strerror}") from error
        self._unsynced.add(os.path.dirname(path))  # noqa: PTH120 - relative to a descriptor
        return size

    def sync_removals(self) -> None:
        """Make every `remove` so far survive a power cut. Raises OSError."""
        while self._unsynced:
            folder = self._unsynced.pop()
            try:
                sync_folder(folder, self._root)
            except BaseException:
                self._unsynced.add(folder)
                raise

    def describe(self, token: str) -> SpoolEntry:
        """Read a file's own account of itself and check its bytes against it. Raises SpoolMissing, SpoolIOError."""
        descriptor, status = self._open(layout.relative_path(token))
        try:
            return described(descriptor, layout.location_of(token), 0, status.st_size, status.st_mtime)
        except OSError as error:
            raise SpoolIOError(f"{layout.relative_path(token)} cannot be read: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def quarantine(self, token: str) -> tuple[Path, int]:
        """Move a file to ``corrupt``; returns its new path and its bytes. Raises SpoolIOError."""
        kept = f"{layout.CORRUPT}/{token}{layout.SUFFIX}"
        try:
            os.rename(layout.relative_path(token), kept, src_dir_fd=self._root, dst_dir_fd=self._root)
            size = os.stat(kept, dir_fd=self._root).st_size
        except OSError as error:
            raise SpoolIOError(f"{token} cannot be moved: {error.strerror}") from error
        return self._folder / kept, size

    def copy(self, path: str, head: bytes, source: int, stretch: tuple[int, int]) -> None:
        """Write `head` and the `stretch` (offset, length) of the file `source` to `path`, durably, all or nothing.

        Raises:
            SpoolFull, SpoolIOError: nothing is at `path` but what was there before.

        """
        partial = layout.partial_path(layout.new_token())
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._root)
            try:
                os.write(descriptor, head)
                copy_bytes(source, *stretch, descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(partial, path, src_dir_fd=self._root, dst_dir_fd=self._root)
            sync_folder(os.path.dirname(path), self._root)  # noqa: PTH120 - relative to a descriptor
        except OSError as error:
            raise storage_error(f"{path} cannot be written", error) from error

    def locations(self) -> Iterator[tuple[str, list[str]]]:
        """Yield, for each folder, the prefix that its locations share and the sorted locations in it. Raises SpoolIOError."""
        for bucket in layout.BUCKETS:
            try:
                names = sorted(path.name for path in (self._folder / layout.INSTANCES / bucket).iterdir())
            except OSError as error:
                raise SpoolIOError(f"{layout.INSTANCES}/{bucket}: {error.strerror}") from error
            tokens = [token for name in names if (token := layout.token_of_file(name)) and token.startswith(bucket)]
            if len(tokens) != len(names):
                _log.warning("spool_foreign_files", folder=bucket, count=len(names) - len(tokens))
            yield layout.bucket_prefix(bucket), [layout.location_of(token) for token in tokens]

    def sweep(self) -> int:
        """Remove partial files and return how many there were. Raises OSError."""
        removed, foreign = remove_files(self._folder / layout.INCOMING)
        if foreign:
            _log.warning("spool_foreign_files", folder=layout.INCOMING, count=foreign)
        return removed

    def held(self) -> tuple[int, int]:
        """Return how many files are below ``instances``, and their bytes. Raises OSError."""
        count = total = 0
        for bucket in layout.BUCKETS:
            with os.scandir(self._folder / layout.INSTANCES / bucket) as entries:
                for entry in entries:
                    count, total = count + 1, total + entry.stat(follow_symlinks=False).st_size
        return count, total

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
