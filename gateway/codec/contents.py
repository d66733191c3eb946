"""The differences between two Part 10 files of one SOP Instance UID (`gateway.codec.alike`). Blocking; no value ever gets out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.codec import alike
from gateway.codec.dataset.extent import Extent
from gateway.codec.workers.pool import Pool
from gateway.core.errors import Incomparable
from gateway.dicom.part10 import ENDS_WITHIN_HEADER, TRANSFER_SYNTAX_UID, CutOff, meta_in

PIXELS = alike.PIXELS


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
    """Open the data set of a DICOM file. Raises Incomparable where it is none, OSError."""
    with path.open("rb") as file:
        descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size

        def read(offset: int, length: int) -> bytes:
            return os.pread(descriptor, length, offset)

        try:
            meta = meta_in(read, size)
        except CutOff:
            raise Incomparable(f"a file cannot be read: it {ENDS_WITHIN_HEADER}") from None
        if meta is None:
            raise Incomparable("a file cannot be read: it is no DICOM file")
        if not (syntax := meta.text(TRANSFER_SYNTAX_UID)):
            raise Incomparable("a file cannot be read: its transfer syntax is not told")
        yield alike.Encoded(Extent(descriptor, meta.end, size - meta.end), syntax)
