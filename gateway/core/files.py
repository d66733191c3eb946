"""Small files that are written whole or not at all, with permissions from the first byte on; folders of one's own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gateway.core.errors import FileUnusable

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""The errors of file systems without hard links: FAT, some network shares."""

PRIVATE = 0o600
PUBLIC = 0o644


def write_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write `content` to `path` in one step: never seen half-written, never with wider permissions than `mode`.

    Replaces what is there. Raises OSError.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    new.replace(path)


def make_private_folder(path: Path) -> bool:
    """Make the folder `path`, 0700 whatever the umask, and those above it; True where it was not there. Raises OSError.

    One that is there keeps its permissions: it may be shared on purpose.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    path.chmod(0o700)
    return True


def remove_files(folder: Path) -> tuple[int, int]:
    """Remove the files in a folder of our own; return how many, and how many folders of somebody else lie there, which stay.

    Raises OSError.
    """
    removed = foreign = 0
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            foreign += 1
        else:
            path.unlink()
            removed += 1
    return removed, foreign


def create_private(path: Path) -> BinaryIO:
    """Open the new file `path` for writing, readable by its owner only; replaces what is there. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE), "wb")


def unusable(error: OSError, doing: str = "", path: Path | None = None) -> FileUnusable:
    """Return what a person is told of a file, folder or socket that cannot be used: what, where, and what to do about it; pure.

    `doing` is what was tried, such as ``cannot write the report``; without it the operating system's words stand alone. `path` is
    where that was, for errors that do not say it.
    """
    words = os.strerror(error.errno) if error.errno else type(error).__name__
    named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    # A path that was opened relative to a folder's descriptor is named without the folder.
    where = ", ".join(str(path / name) if path is not None and path.is_absolute() else name for name in named) or str(path or "")
    advice = _ADVICE.get(error.errno or 0, "")
    # A folder above is in the way: both are named.
    above = str(path) if path is not None and where and Path(where) in path.parents else ""
    said = ": ".join(part for part in (doing, above, where, words) if part)
    return FileUnusable(f"{said} ({advice})" if advice else said, retryable=error.errno in _PASSING)


@contextmanager
def using(path: Path, doing: str = "") -> Iterator[None]:
    """Have an OSError over `path`, or over what is in it, leave as `FileUnusable`; `doing` as in `unusable`."""
    try:
        yield
    except OSError as error:
        raise unusable(error, doing, path) from error


_ADVICE = {
    errno.EACCES: "give the user who runs this the right to it, and to pass through the folders above it",
    errno.EPERM: "give the user who runs this the right to it, or take its attributes (lsattr) away",
    errno.EROFS: "its file system is mounted read-only: mount it for writing, or name another place",
    errno.ENOENT: "there is none: make it, or correct the path",
    errno.ENOTDIR: "something in this path is a file and no folder: correct the path",
    errno.EISDIR: "it is a folder: name a file",
    errno.EEXIST: "it is there already, as something else: move it away, or name another place",
    errno.ENOTEMPTY: "the folder is not empty: move away what is in it",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "symbolic links lead round in a circle: correct them",
    errno.ENOSPC: "make room on its file system, or name another place",
    errno.EDQUOT: "this user's quota is used up: make room, or name another place",
    errno.EFBIG: "its file system takes no file so large: name another place",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n, LimitNOFILE)",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the disk or the connection to it fails: look at the system's log",
    errno.ESTALE: "the share was exported anew: mount it again",
    errno.ENODEV: "the device is not there: mount it",
    errno.ENXIO: "the device is not there: mount it",
    errno.ENOTCONN: "the share is not connected: mount it again",
    errno.EBUSY: "something else uses it",
    errno.ETXTBSY: "something else uses it",
}

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EBUSY})
"""The errors that may be over when an operation is tried again."""
