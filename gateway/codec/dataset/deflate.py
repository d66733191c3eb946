"""Deflated data sets (PS3.5 §A.5): inflated with a bound, deflated as a stream."""

from __future__ import annotations

import zlib

from gateway.codec.dataset.extent import COPY_BYTES, Extent, Output
from gateway.core.errors import NotTranscodable


def inflate(source: Extent, output: Output, *, limit_bytes: int) -> None:
    """Append what `source` holds deflated to `output`.

    Raises:
        NotTranscodable: it is no deflated stream, does not end, or holds more than `limit_bytes`.
        OSError: the file cannot be read or written.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    begin = output.position
    for position in range(0, source.length, COPY_BYTES):
        pending = source.read(position, COPY_BYTES)
        while pending and not stream.eof:
            output.write(_inflated(stream, pending))
            pending = stream.unconsumed_tail
            if output.position - begin > limit_bytes:
                raise NotTranscodable(f"the deflated data set holds more than {limit_bytes} bytes")
    if not stream.eof:
        raise NotTranscodable("the deflated data set does not end")


def _inflated(stream: zlib._Decompress, data: bytes) -> bytes:
    try:
        return stream.decompress(data, COPY_BYTES)
    except zlib.error:
        raise NotTranscodable("the data set is not deflated as its transfer syntax says") from None


def deflate(source: Extent, output: Output) -> None:
    """Append `source` to `output`, deflated; padded to an even length. Raises OSError."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    begin = output.position
    for position in range(0, source.length, COPY_BYTES):
        output.write(stream.compress(source.read(position, COPY_BYTES)))
    output.write(stream.flush())
    if (output.position - begin) % 2:
        output.write(b"\0")
