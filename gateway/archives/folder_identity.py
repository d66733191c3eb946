"""The identity of a destination's folder: whether the one at its path is the one that was there before.

A share that is not mounted leaves its empty mount point, and a disk may be replaced by another: what is written there then is not
at the destination. So a folder that is delivered into gets a marker file with an id, and the ledger remembers the id
(`gateway.ledger.peers.folders`). A folder is made, or taken for the first time, only where none was known at its path; a known one
that is gone, or another one in its place, is a destination that is down, until it is back or a person accepts what lies there.

The consequences of a finding are decided by `judge`, which is pure. Blocking; thread-safe.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from gateway.core.errors import DestinationUnavailable, LedgerError
from gateway.core.files import NO_LINKS, make_private_folder
from gateway.core.log import get_logger
from gateway.ledger import Ledger
from gateway.ledger.peers import folders
from gateway.ledger.peers.folders import FolderMemory, KnownFolder

MARKER = ".dicom-gateway"
"""The name of the marker file."""

ASIDE = ".incoming"
"""The folder within the destination's in which files are written before they get their places; older gateways made it too."""

_TEXT = """The DICOM gateway delivers into this folder and knows it by this file.
Without it nothing more is delivered here, until someone says: gateway accept-folder
id {id}
"""
_ID = re.compile(rb"^id ([0-9a-f]{32})$", re.MULTILINE)
_MAX_MARKER_BYTES = 4096

_log = get_logger()


class Step(Enum):
    """The step to take before a folder is delivered into."""

    USE = auto()
    """Nothing: it is the known one, or has a marker that can be taken over."""

    MARK = auto()
    """Write a marker into it."""

    MAKE = auto()
    """Make it, then mark it."""


@dataclass(frozen=True, slots=True)
class Found:
    """The folder found at a path: `marker` is the id in its marker file, `used` says that an older gateway has written into it."""

    device: int
    inode: int
    marker: str | None = None
    used: bool = False


def judge(memory: FolderMemory, found: Found | None) -> Step | str:
    """Return what to do about what was found at the path, None for nothing, or why it is not delivered into. Pure."""
    if memory.known is not None:
        return _judge_known(memory.known, found)
    if found is None:
        return "it was there and is gone; is its share mounted?" if memory.delivered else Step.MAKE
    if found.marker is not None:
        return Step.USE
    if memory.delivered and not found.used:
        return "instances were delivered before, and nothing in it shows that it is the same folder; is its share mounted?"
    return Step.MARK


def _judge_known(known: KnownFolder, found: Found | None) -> Step | str:
    if found is None:
        return "it was there and is gone; is its share mounted?"
    if found.marker == known.id:
        return Step.USE
    if found.marker is not None:
        return "another folder lies in its place, with another marker; is the right share mounted?"
    if (found.device, found.inode) == (known.device, known.inode):
        return f"its marker file {MARKER} is gone, so that it cannot be told from another folder."
    return f"another folder lies in its place, without the marker file {MARKER}; is its share mounted?"


def key_of(path: Path) -> str:
    """Return what the folder at `path` is remembered by."""
    return str(path.absolute())


class Remembering(Protocol):
    """The memory of folders. Methods raise LedgerError."""

    def recall(self, path: str) -> FolderMemory:
        """Return what is known of the folder at `path`."""

    def remember(self, path: str, known: KnownFolder) -> None:
        """Remember it, durably."""

    def owner(self) -> str:
        """Return the token of this gateway."""


@dataclass(frozen=True)
class LedgerRemembers:
    """Folders of one destination, remembered in the ledger."""

    ledger: Ledger
    destination: str
    clock: Callable[[], float] = time.time

    def recall(self, path: str) -> FolderMemory:
        """As `Remembering.recall`."""
        return self.ledger.ask(lambda connection: folders.recall(connection, self.destination, path, now=self.clock()))

    def remember(self, path: str, known: KnownFolder) -> None:
        """As `Remembering.remember`."""
        now = self.clock()
        self.ledger.write(lambda connection: folders.remember(connection, self.destination, path, known, now=now))

    def owner(self) -> str:
        """As `Remembering.owner`."""
        now, fresh = self.clock(), secrets.token_hex(8)
        return self.ledger.write(lambda connection: folders.owner(connection, fresh, now=now))


@dataclass
class ProcessRemembers:
    """Folders remembered for as long as the process runs."""

    known: dict[str, KnownFolder] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def recall(self, path: str) -> FolderMemory:
        """As `Remembering.recall`."""
        return FolderMemory(self.known.get(path))

    def remember(self, path: str, known: KnownFolder) -> None:
        """As `Remembering.remember`."""
        self.known[path] = known

    def owner(self) -> str:
        """As `Remembering.owner`."""
        return self.token


class FolderIdentity:
    """The folder at `path`, which the destination `name` delivers into."""

    def __init__(self, name: str, path: Path, memory: Remembering) -> None:
        self.path = path
        self._name = name
        self._key = key_of(path)
        self._memory = memory
        self._lock = threading.Lock()
        self._owner = ""

    def open(self) -> int:
        """Return a descriptor of the folder, made and marked where that is to be done; the caller closes it.

        Raises:
            DestinationUnavailable: it is not there, is another one than before, or cannot be made or marked.
        """
        try:
            with self._lock:
                memory = self._memory.recall(self._key)
                descriptor = self._opened()
                step = judge(memory, None if descriptor is None else _found(descriptor))
                if isinstance(step, str):
                    _close(descriptor)
                    raise self._other(step)
                if descriptor is None:
                    descriptor = self._made()
                try:
                    self._take(descriptor, memory, mark=step is not Step.USE)
                except BaseException:
                    os.close(descriptor)
                    raise
                return descriptor
        except OSError as error:
            raise unavailable(self.path, error) from error
        except LedgerError as error:
            raise DestinationUnavailable(f"folder {self.path}: which folder it is cannot be remembered: {error}") from error

    def check(self) -> None:
        """Make sure that what lies at the path is not known to be another folder, or gone. Nothing is made or remembered.

        Raises:
            DestinationUnavailable: it is; or it cannot be looked at.
        """
        try:
            memory, descriptor = self._memory.recall(self._key), self._opened()
            try:
                step = judge(memory, None if descriptor is None else _found(descriptor))
            finally:
                _close(descriptor)
        except OSError as error:
            raise unavailable(self.path, error) from error
        if isinstance(step, str):
            raise self._other(step)

    def still_at(self, descriptor: int) -> bool:
        """Tell whether the path still leads to the folder of `descriptor`. Raises OSError."""
        try:
            now, was = self.path.stat(), os.fstat(descriptor)
        except FileNotFoundError:
            return False
        return (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino)

    def owner(self) -> str:
        """Return the token of this gateway. Raises LedgerError."""
        self._owner = self._owner or self._memory.owner()
        return self._owner

    def _other(self, why: str) -> DestinationUnavailable:
        return DestinationUnavailable(
            f"folder {self.path}: {why} To take what lies there for the folder from now on: gateway accept-folder {self._name}"
        )

    def _opened(self) -> int | None:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.path.is_symlink():
                raise OSError(errno.ENOTDIR, "a link to a folder that is not there") from None
            return None

    def _made(self) -> int:
        make_private_folder(self.path)
        parent = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _take(self, descriptor: int, memory: FolderMemory, *, mark: bool) -> None:
        marker = _marked(descriptor) if mark else _marker_in(descriptor)
        if marker is None:
            raise OSError(errno.EIO, f"its marker file {MARKER} does not read back as it was written")
        status = os.fstat(descriptor)
        known = KnownFolder(marker, status.st_dev, status.st_ino)
        if memory.known != known:
            if memory.known is None:
                _log.info("folder_taken", destination=self._name, path=self._key, marker=marker)
            self._memory.remember(self._key, known)


def _found(descriptor: int) -> Found:
    status = os.fstat(descriptor)
    marker = _marker_in(descriptor)
    try:
        os.stat(ASIDE, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return Found(status.st_dev, status.st_ino, marker)
    return Found(status.st_dev, status.st_ino, marker, used=True)


def _marker_in(descriptor: int) -> str | None:
    """Return the id in the folder's marker file, None where there is no such file or no id in it. Raises OSError."""
    try:
        file = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    try:
        found = _ID.search(os.read(file, _MAX_MARKER_BYTES))
    except IsADirectoryError:
        return None
    finally:
        os.close(file)
    return None if found is None else found[1].decode()


def _marked(descriptor: int) -> str | None:
    """Write a marker into the folder, unless another process does so first; return the id that is there then. Raises OSError."""
    aside = f"{MARKER}.{secrets.token_hex(8)}"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=descriptor)
    try:
        try:
            os.write(file, _TEXT.format(id=secrets.token_hex(16)).encode())
            os.fsync(file)
        finally:
            os.close(file)
        try:
            os.link(aside, MARKER, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except OSError as error:
            if error.errno not in {errno.EEXIST, *NO_LINKS}:
                raise
            # A file there without an id in it is no marker.
            if _marker_in(descriptor) is None:
                os.rename(aside, MARKER, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=descriptor)
    os.fsync(descriptor)
    return _marker_in(descriptor)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


_WORDS = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "not writable",
    errno.EPERM: "not writable",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "not a folder",
    errno.EEXIST: "not a folder",
}


def unavailable(root: Path, error: OSError) -> DestinationUnavailable:
    """Return what an error of the file system means for the destination whose folder is `root`."""
    words = _WORDS.get(error.errno or 0) or error.strerror or type(error).__name__
    return DestinationUnavailable(f"folder {root}: {words}")
