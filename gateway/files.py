"""Small files that are written whole or not at all, with permissions from the first byte on; folders of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

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


def create_private(path: Path) -> BinaryIO:
    """Open the new file `path` for writing, readable by its owner only; replaces what is there. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE), "wb")
