"""The frames of a data set's Pixel Data: where each one's bytes lie, and all of them worked on by the pool in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from gateway.codec.dataset.encapsulation import EXTENDED_OFFSET_TABLE, Range, frames_of
from gateway.codec.pixels.attributes import PixelDescription
from gateway.codec.pixels.survey import Survey
from gateway.codec.workers.pool import Pool
from gateway.core.errors import NotTranscodable
from gateway.dicom.syntaxes import TransferSyntax

Result = TypeVar("Result")

_FRAMES_AHEAD = 2
"""The number of frames in the works for each worker: enough that none waits for the file to be written."""


def ranges_of(found: Survey, pixel: PixelDescription, stored: TransferSyntax) -> Sequence[Sequence[Range]]:
    """Return, for each frame, where its bytes lie in the file.

    Raises:
        NotTranscodable: Pixel Data is not what `pixel` and the transfer syntax `stored` say.
    """
    element = found.pixel_data
    assert element is not None
    base = found.walker.window.extent.offset
    if stored.encapsulated:
        if not element.undefined:
            raise NotTranscodable(f"Pixel Data has a length, which it cannot have in {stored.name}")
        frames = frames_of(found.walker, element, pixel.frames, found.value(EXTENDED_OFFSET_TABLE))
        return [[(base + offset, length) for offset, length in fragments] for fragments in frames]
    if element.undefined:
        raise NotTranscodable(f"Pixel Data has no length, which it must have in {stored.name}")
    if element.length not in (pixel.native_bytes, pixel.native_bytes + pixel.native_bytes % 2):
        raise NotTranscodable(f"Pixel Data has {element.length} bytes where {pixel.native_bytes} belong")
    size = pixel.frame_bytes
    return [((base + element.value + number * size, size),) for number in range(pixel.frames)]


def in_order(orders: Iterator[Callable[[], Future[Result]]], pool: Pool) -> Generator[Result, None, None]:
    """Yield the results in order, a few in the works ahead; whatever happens, none is in the works afterwards."""
    running: deque[Future[Result]] = deque()
    try:
        for start in orders:
            running.append(start())
            if len(running) >= _FRAMES_AHEAD * pool.workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
        wait(running)


def taken(fd: int, length: int) -> bytes:
    """Return the whole result that a worker left in the file `fd`."""
    return os.pread(fd, length, 0)
