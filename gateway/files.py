"""Small files that are written whole or not at all, with permissions from the first byte on."""

from __future__ import annotations

import os
from pathlib import Path

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
