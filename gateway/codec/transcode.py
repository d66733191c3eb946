"""A data set brought into another transfer syntax: the room's one operation.

It goes through Explicit VR Little Endian: what is deflated, implicit or Big Endian is brought there first, then the pixels are
compressed or decompressed, then the headers are made implicit or the whole is deflated where the target is. Steps in between are
kept in files without a name; memory is bounded by a few frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.codec.dataset.convert import convert
from gateway.codec.dataset.deflate import deflate, inflate
from gateway.codec.dataset.extent import Extent, Output
from gateway.codec.dataset.headers import EXPLICIT, IMPLICIT, Encoding
from gateway.codec.pixels import attributes
from gateway.codec.pixels.survey import Survey, survey
from gateway.codec.rewrite import rewrite
from gateway.codec.workers.pool import Pool
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import TransferSyntax, syntax

MAX_INFLATED_BYTES = 4 * 1024**3

Step = Callable[[Extent, Output], int]
"""`step(source, output)` writes a whole data set and returns how many frames it encoded or decoded."""


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A data set in its new transfer syntax: its length in bytes, and how many frames were encoded or decoded for it."""

    transfer_syntax_uid: str
    length: int
    frames: int


def transcode(
    source: Extent,
    stored: str,
    target: str,
    output: int,
    pool: Pool,
    *,
    allow_decompressed_lossy: bool = False,
    max_inflated_bytes: int = MAX_INFLATED_BYTES,
    folder: Path | None = None,
) -> Transcoded:
    """Write the data set `source` to a file in another transfer syntax.

    Encoded pixels are decoded again and compared. `gateway.codec.policy` says which targets there are for which `stored`.

    Args:
        source: the data set, without File Meta Information; its file stays open meanwhile.
        stored: its transfer syntax UID.
        target: the transfer syntax UID that it is to have.
        output: the descriptor of a file for reading and writing, which is written from its beginning and cut behind the data
            set; not synced. After an error it holds rubbish.
        pool: what encodes and decodes.
        allow_decompressed_lossy: pixels that lost something may be decoded.
        max_inflated_bytes: the most that a deflated data set may hold.
        folder: where to keep steps in between; the system's temporary folder by default.

    Raises:
        NotTranscodable: there is no way from `stored` to `target` for this data set; another target may do.
        PixelsDiffer: the proof failed.
        CodecFailed: a codec refused a frame, crashed, or needed too much time or memory.
        GatewayStopping: the pool was closed meanwhile.
        OSError: a file could not be read or written.
    """
    before, after = syntax(stored), syntax(target)
    if not before.lossless and not allow_decompressed_lossy:
        raise NotTranscodable(f"pixels in {before.name} may be lossy and are not decoded without allow_decompressed_lossy")
    steps = _steps(before, after, pool, max_inflated_bytes)
    frames = 0
    with ExitStack() as stack:
        for step in steps[:-1]:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            source, made = run(step, source, file.fileno())
            frames += made
        result, made = run(steps[-1], source, output)
    return Transcoded(target, result.length, frames + made)


def unpacking(before: TransferSyntax, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> list[Step]:
    """Return the steps, none for most, that make Little Endian of a data set which is deflated or Big Endian."""
    steps: list[Step] = []
    if before.deflated:
        steps.append(partial(_inflated, limit_bytes=max_inflated_bytes))
    if before.big_endian:
        steps.append(partial(_converted, before=Encoding(before.explicit, before.big_endian), after=EXPLICIT))
    return steps


def run(step: Step, source: Extent, fd: int) -> tuple[Extent, int]:
    """Carry out one step into the empty file `fd`; return the data set there, and how many frames were encoded or decoded.

    Raises:
        NotTranscodable, PixelsDiffer, CodecFailed: as the step does.
        OSError: a file cannot be read or written.
    """
    output = Output(fd)
    try:
        frames = step(source, output)
    except EOFError:
        raise NotTranscodable("the file ends before its data set does") from None
    return Extent(fd, 0, output.finish()), frames


def _steps(before: TransferSyntax, after: TransferSyntax, pool: Pool, max_inflated_bytes: int) -> list[Step]:
    steps = unpacking(before, max_inflated_bytes)
    if not before.explicit:
        steps.append(partial(_converted, before=IMPLICIT, after=EXPLICIT))
    if before.encapsulated or after.encapsulated:
        steps.append(partial(_rewritten, before=before, after=after, pool=pool))
    if not after.explicit:
        steps.append(partial(_converted, before=EXPLICIT, after=IMPLICIT))
    if after.deflated:
        steps.append(_deflated)
    if not steps or after.big_endian or before.uid == after.uid:
        raise NotTranscodable(f"nothing is brought from {before.name} into {after.name}")
    return steps


def _inflated(source: Extent, output: Output, *, limit_bytes: int) -> int:
    inflate(source, output, limit_bytes=limit_bytes)
    return 0


def _deflated(source: Extent, output: Output) -> int:
    deflate(source, output)
    return 0


def _converted(source: Extent, output: Output, *, before: Encoding, after: Encoding) -> int:
    if before.big_endian:
        _require_one_reading(survey(source, before))
    convert(source, before, after, output)
    return 0


def _require_one_reading(found: Survey) -> None:
    """Raise NotTranscodable for cells of more than 16 bits in Big Endian words of 16.

    PS3.5 §A.3 and §6.2 swap bytes within words; some writers reverse the whole cell, and nothing in the data set tells which.
    """
    bits = int.from_bytes(found.values.get(attributes.BITS_ALLOCATED, b""), "little")
    if found.pixel_data is not None and found.pixel_data.vr == b"OW" and bits > 16:
        raise NotTranscodable(f"pixels of {bits} bits in Big Endian words of 16, which readers understand in two ways")


def _rewritten(source: Extent, output: Output, *, before: TransferSyntax, after: TransferSyntax, pool: Pool) -> int:
    return rewrite(source, before, after, output, pool)
