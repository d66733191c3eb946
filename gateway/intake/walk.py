"""Finding files below folders: deterministic order, symbolic links followed, loops and special files stepped around."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file, or why something that was found is none; `refused` tells that it should have been readable."""

    path: Path
    reason: str = ""
    refused: bool = False


def walk(paths: Sequence[Path]) -> Iterator[Found]:
    """Yield everything below `paths` that is no folder: folder by folder, names in order, each folder once."""
    seen: set[tuple[int, int]] = set()
    for root in paths:
        yield from _below(Path(os.path.realpath(root)), seen)


def shown(path: Path) -> str:
    """Return `path` as text that can be printed and encoded, whatever bytes its name is made of."""
    return printable(os.fsencode(path).decode("utf-8", "replace"))


def printable(text: str) -> str:
    """Return `text` with control characters replaced: names come from strangers."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _below(root: Path, seen: set[tuple[int, int]]) -> Iterator[Found]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                yield Found(path) if stat.S_ISREG(status.st_mode) else Found(path, "not a regular file")
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                waiting += sorted(path.iterdir(), reverse=True)
        except OSError as error:
            yield Found(path, error.strerror or error.__class__.__name__, refused=True)
