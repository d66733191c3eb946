"""Transcoded copies of instances, kept in files until they are delivered: one for each instance and transfer syntax.

They can be made again at any time, so nothing is synced, and a start begins with none. Where bytes lie, rooms beside this one see
as `Content` with a location of ours; everything else is the spool's. Names are opaque, files 0600, the folder 0700. Thread-safe.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from gateway.core.domain import Content
from gateway.core.errors import SpoolIOError, SpoolMissing
from gateway.core.files import make_private_folder, remove_files
from gateway.core.log import get_logger
from gateway.delivery.destination import ContentStore, OpenBytes
from gateway.spool.content import OpenContent, digest_of

_log = get_logger()

PREFIX = "copy:"

IDLE_BYTES = 256 * 1024 * 1024
"""Copies that nobody waits for yet are kept up to so many bytes, while their instances are owed to another destination."""

Key = tuple[str, int, str, str]
"""Digest and length of the stored data set, its transfer syntax UID, and that of the copy."""


def key_of(content: Content, stored: str, target: str) -> Key:
    """Return what a copy of `content`, stored in one transfer syntax, in another one is known by."""
    return content.digest, content.length, stored, target


class Copies:
    """The copies in one folder, and the bytes of everything else from `store`: a `ContentStore`."""

    def __init__(self, folder: Path, store: ContentStore) -> None:
        self._folder = folder
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Content] = OrderedDict()
        self._instances: dict[Key, int] = {}
        """The instance that each is a copy of, by its id in the ledger."""

    def begin(self) -> None:
        """Make the folder where there is none, and remove what an earlier run left in it. Raises OSError."""
        make_private_folder(self._folder)
        _, foreign = remove_files(self._folder)
        if foreign:
            _log.warning("transcoded_foreign_files", count=foreign)

    def open(self, content: Content) -> AbstractContextManager[OpenBytes]:
        """Open a copy, or what the spool has. Raises SpoolMissing, SpoolIOError."""
        if not content.location.startswith(PREFIX):
            return self._store.open(content)
        try:
            descriptor = os.open(self._path(content.location), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SpoolMissing("the transcoded copy is not kept any more") from None
        except OSError as error:
            raise SpoolIOError(f"the transcoded copy cannot be opened: {error.strerror}") from error
        return OpenContent(descriptor, 0, content.length)

    def find(self, content: Content, stored: str, target: str) -> Content | None:
        """Return the copy of `content` in the transfer syntax `target`, where there is one."""
        with self._lock:
            copy = self._kept.get(key := key_of(content, stored, target))
            if copy is not None:
                self._kept.move_to_end(key)
            return copy

    def make(self, content: Content, stored: str, target: str, write: Callable[[int], int], *, instance_id: int = 0) -> Content:
        """Keep what `write` writes into the file that it is given the descriptor of; `write` returns how long that is.

        It is a copy of the instance with this id in the ledger.

        Raises:
            OSError: the file cannot be made or read back; and what `write` raises. Nothing is left of it then.
        """
        location = PREFIX + secrets.token_hex(16)
        path = self._path(location)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            length = write(descriptor)
            copy = Content(location, 0, length, digest_of(descriptor, 0, length))
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        with self._lock:
            replaced = self._kept.pop(key := key_of(content, stored, target), None)
            self._kept[key], self._instances[key] = copy, instance_id
        self._remove([replaced] if replaced else [])
        return copy

    def drop(self, copy: Content) -> None:
        """Remove a copy that is not what it was."""
        with self._lock:
            keys = [key for key, kept in self._kept.items() if kept == copy]
            self._remove([self._pop(key) for key in keys])

    def any(self) -> bool:
        """Tell whether there is any copy."""
        return bool(self._kept)

    def instances(self) -> set[int]:
        """Return the ids of the instances that there are copies of."""
        with self._lock:
            return set(self._instances.values())

    def keep_only(self, wanted: Callable[[Key], bool], settled: Collection[int] = ()) -> None:
        """Remove copies that are not `wanted`: all of instances that are `settled` everywhere.

        Of the others those used longest ago go first, until they are few enough.
        """
        with self._lock:
            unwanted = [key for key in self._kept if not wanted(key)]
            gone = [key for key in unwanted if self._instances[key] in settled]
            idle = [key for key in unwanted if self._instances[key] not in settled]
            excess = sum(self._kept[key].length for key in idle) - IDLE_BYTES
            gone += _first_of(((key, self._kept[key].length) for key in idle), excess)
            self._remove([self._pop(key) for key in gone])

    @property
    def folder(self) -> Path:
        """The folder of the copies; files between two steps of making one may lie there too."""
        return self._folder

    def _pop(self, key: Key) -> Content:
        self._instances.pop(key, None)
        return self._kept.pop(key)

    def _path(self, location: str) -> Path:
        return self._folder / location.removeprefix(PREFIX)

    def _remove(self, copies: Collection[Content]) -> None:
        for copy in copies:
            # A reader that has it open reads on.
            self._path(copy.location).unlink(missing_ok=True)


def _first_of(sized: Iterator[tuple[Key, int]], excess: int) -> Iterator[Key]:
    """Yield keys until `excess` bytes are covered."""
    for key, size in sized:
        if excess <= 0:
            return
        excess -= size
        yield key
