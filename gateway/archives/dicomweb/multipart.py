"""The body of a multipart answer (RFC 2046 §5.1, PS3.18 §8.6.1), read as it comes: memory is one chunk and one boundary."""

from __future__ import annotations

from collections.abc import Iterable
from email.message import Message
from typing import BinaryIO

MAX_HEADER_BYTES = 64 * 1024


def boundary_of(content_type: str) -> str:
    """Return the boundary that a Content-Type names. Raises ValueError where it is no multipart or names none."""
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise ValueError("no multipart message with a boundary")
    return boundary


def first_part(content_type: str, chunks: Iterable[bytes], file: BinaryIO) -> None:
    """Write the body of the first part into `file`.

    Raises:
        ValueError: it is no multipart message, or ends before its first part does.

    """
    delimiter = b"--" + boundary_of(content_type).encode("latin-1")
    coming = iter(chunks)
    waiting = _behind_header(coming, delimiter)
    end = b"\r\n" + delimiter
    while True:
        at = waiting.find(end)
        if at >= 0:
            file.write(waiting[:at])
            return
        keep = min(len(waiting), len(end) - 1)
        file.write(waiting[: len(waiting) - keep])
        chunk = next(coming, None)
        if chunk is None:
            raise ValueError("the message ends before its part does")
        waiting = waiting[len(waiting) - keep :] + chunk


def _behind_header(coming: Iterable[bytes], delimiter: bytes) -> bytes:
    """Return what has come behind the first part's header."""
    start = b""
    for chunk in coming:
        start += chunk
        begin = start.find(delimiter)
        header_end = start.find(b"\r\n\r\n", begin + len(delimiter)) if begin >= 0 else -1
        if header_end >= 0:
            return start[header_end + 4 :]
        if len(start) > MAX_HEADER_BYTES:
            break
    raise ValueError("no part in it")
