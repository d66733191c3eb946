"""Finding files below folders: deterministic order, links to folders on request only, loops and special files stepped around.

A symbolic link to a file is that file under the link's name: it was put into the folder. A symbolic link to a folder leads out of
what was given, back into it, or round in a circle; so it is followed only where that is asked for, and named otherwise. Either way
each folder is read once. Paths that are given as such are followed, links or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.core.domain import printable

NOT_FOLLOWED = "a link to a folder, not followed (--follow-links)"
READ_BEFORE = "a link to a folder that is read already"


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file, or why something that was found is none.

    `refused` tells that it should have been readable, `link` that it is a symbolic link to a folder.
    """

    path: Path
    reason: str = ""
    refused: bool = False
    link: bool = False


def walk(paths: Sequence[Path], *, follow_links: bool = True) -> Iterator[Found]:
    """Yield everything below `paths` that is no folder: folder by folder, names in order, each folder once.

    Without `follow_links` a link to a folder below `paths` is yielded with the reason why it is not read.
    """
    seen: set[tuple[int, int]] = set()
    for root in paths:
        yield from _below(Path(os.path.realpath(root)), seen, follow_links)


def shown(path: Path) -> str:
    """Return `path` as text that can be printed and encoded, whatever bytes its name is made of."""
    return printable(os.fsencode(path).decode("utf-8", "replace"))


def _below(root: Path, seen: set[tuple[int, int]], follow_links: bool) -> Iterator[Found]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
            if not stat.S_ISDIR(status.st_mode):
                yield Found(path) if stat.S_ISREG(status.st_mode) else Found(path, "not a regular file")
                continue
            is_link = path.is_symlink()
            if is_link and not follow_links:
                yield Found(path, NOT_FOLLOWED, link=True)
            elif (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                waiting += sorted(path.iterdir(), reverse=True)
            elif is_link:
                yield Found(path, READ_BEFORE, link=True)
        except OSError as error:
            yield Found(path, error.strerror or error.__class__.__name__, refused=True)
