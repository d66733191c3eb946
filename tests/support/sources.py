"""Byte sources for C-STORE: the data set of a Part 10 file, or bytes of any size, as the requestor takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREAMBLE_BYTES = 132
GROUP_LENGTH_BYTES = 12


@dataclass
class FileSource:
    """`length` bytes from `offset` of an open file."""

    descriptor: int
    offset: int
    length: int

    def fileno(self) -> int:
        return self.descriptor


@contextmanager
def dataset_of(path: Path) -> Iterator[FileSource]:
    """The data set of a Part 10 file whose meta information has a group length."""
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + GROUP_LENGTH_BYTES)
        offset = len(head) + int.from_bytes(head[-4:], "little")
        yield FileSource(file.fileno(), offset, path.stat().st_size - offset)


@contextmanager
def source_of(data: bytes, folder: Path, *, offset: int = 0) -> Iterator[FileSource]:
    """`data` in a file, with `offset` bytes before it that must never be sent."""
    path = folder / f"source-{os.urandom(4).hex()}"
    path.write_bytes(b"\xee" * offset + data + b"\xdd" * 10)
    with path.open("rb") as file:
        yield FileSource(file.fileno(), offset, len(data))
