"""What two Part 10 files of one SOP Instance UID differ in (`gateway.codec.alike`). Blocking; no value ever gets out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.codec import alike
from gateway.codec.elements import EXPLICIT, Walker
from gateway.codec.extent import Extent, Window
from gateway.codec.pool import Pool
from gateway.errors import Incomparable, NotTranscodable

PIXELS = alike.PIXELS

_TRANSFER_SYNTAX_UID = 0x00020010
_BEFORE_META = 132
"""Preamble and prefix (PS3.10 §7.1)."""


def differing(a: Path, b: Path, pool: Pool) -> tuple[str, ...]:
    """Return what two files differ in, as `gateway.codec.alike.differing` does; steps in between are kept beside `a`.

    Raises:
        Incomparable: one cannot be read, is no DICOM file, or its pixels cannot be decoded where that is needed.
        GatewayStopping: the pool was closed meanwhile.
    """
    try:
        with opened(a) as one, opened(b) as other:
            return alike.differing(one, other, pool, folder=a.parent)
    except OSError as error:
        raise Incomparable(f"a file cannot be read ({error.strerror or type(error).__name__})") from None


@contextmanager
def opened(path: Path) -> Iterator[alike.Encoded]:
    """Open the data set of a Part 10 file. Raises Incomparable where it is none, OSError."""
    with path.open("rb") as file:
        whole = Extent(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        try:
            yield _encoded(whole)
        except NotTranscodable as error:
            raise Incomparable(f"a file cannot be read: {error}") from error


def _encoded(file: Extent) -> alike.Encoded:
    if file.read(_BEFORE_META - 4, 4) != b"DICM":
        raise NotTranscodable("it is no DICOM file")
    walker, position, syntax = Walker(Window(file)), _BEFORE_META, ""
    while file.read(position, 2) == b"\2\0":
        element = walker.header(position, EXPLICIT, file.length)
        position = walker.behind(element, EXPLICIT, file.length)
        if element.tag == _TRANSFER_SYNTAX_UID:
            syntax = file.read(element.value, element.length).decode("latin-1").strip(" \0")
    if not syntax:
        raise NotTranscodable("its transfer syntax is not told")
    return alike.Encoded(Extent(file.fd, position, file.length - position), syntax)
