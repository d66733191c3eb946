"""A process that encodes and decodes frames, one at a time, and may die of it.

Run as ``python -m gateway.codec.workers.worker SOCKET RESULT BYTES``: two descriptors, and how much memory one frame may take.

It gets descriptors to read from, writes each result from the beginning of the file `RESULT`, and has nothing else of the
gateway's: no environment, no sockets, no locks. It ends when the other end of its socket does. The kernel limits the memory
and CPU time that one frame may take.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from gateway.codec.dataset.extent import write_at
from gateway.codec.workers import wire
from gateway.codec.workers.order import Order
from gateway.codec.workers.work import do
from gateway.core.errors import NotTranscodable, PixelsDiffer

NICENESS = 5
"""Frames give way to the gateway's own threads, which receive and send."""

_PRELOADED = ("openjpeg.utils",)


def main(argv: list[str]) -> None:
    """Serve requests until the socket closes."""
    connection = socket.socket(fileno=int(argv[0]))
    result = int(argv[1])
    for module in _PRELOADED:
        __import__(module)
    os.nice(NICENESS)
    _limit_memory(int(argv[2]))
    wire.send(connection, {"ready": os.getpid()})
    while (request := wire.receive(connection, 1)) is not None:
        message, fds = request
        try:
            answer = _answer(message, fds[0], result)
        finally:
            for fd in fds:
                os.close(fd)
        wire.send(connection, answer)


def _limit_memory(allowed_bytes: int) -> None:
    """Let the address space grow by `allowed_bytes` beyond what it is now, and leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = Path("/proc/self/statm")
    if used.exists():  # elsewhere than on Linux nobody says what is used now, and the limit is not heeded either
        limit = int(used.read_text().split()[0]) * resource.getpagesize() + allowed_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_time(seconds: int) -> None:
    """Have the kernel end this process where it computes for `seconds` more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _answer(message: dict[str, Any], source: int, result: int) -> dict[str, Any]:
    _limit_time(message["seconds"])
    try:
        data = b"".join(_read(source, offset, length) for offset, length in message["ranges"])
        made = do(Order.from_dict(message["order"]), data)
        write_at(result, 0, made)
    except (NotTranscodable, PixelsDiffer) as error:
        return {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        return {"error": "CodecFailed", "message": "the codec needed more memory than one frame may take"}
    except Exception as error:  # noqa: BLE001 - the root of one request: codecs raise what they like
        words = " ".join(str(error).split()) or type(error).__name__  # some tell it in several lines
        return {"error": "CodecFailed", "message": f"the codec refused it: {words}"[:300]}
    return {"length": len(made)}


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise NotTranscodable("the file ends before its pixel data does")
        data += more
    return data


if __name__ == "__main__":
    main(sys.argv[1:])
