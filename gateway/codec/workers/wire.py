"""The messages between the pool and a worker process: a length, then JSON, over a Unix socket; descriptors ride on the length."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_MAX_MESSAGE_BYTES = 256 * 1024 * 1024


def send(connection: socket.socket, message: dict[str, Any], fds: list[int] | None = None) -> None:
    """Send `message`, and with it copies of the descriptors `fds`. Raises OSError."""
    data = json.dumps(message).encode()
    length = struct.pack("!L", len(data))
    if fds:
        socket.send_fds(connection, [length], fds)
    else:
        connection.sendall(length)
    connection.sendall(data)


def receive(connection: socket.socket, max_fds: int = 0) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next message and its descriptors; None where the other side went away. Raises OSError, ValueError."""
    if max_fds:
        data, fds, _, _ = socket.recv_fds(connection, 4, max_fds)
    else:
        data, fds = connection.recv(4), []
    data += _exactly(connection, 4 - len(data)) if data else b""
    if len(data) < 4:
        return None
    (length,) = struct.unpack("!L", data)
    if length > _MAX_MESSAGE_BYTES:
        raise ValueError("a message without end")
    body = _exactly(connection, length)
    return (json.loads(body), fds) if len(body) == length else None


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        data = connection.recv(min(size - len(parts), 1 << 20))
        if not data:
            break
        parts += data
    return bytes(parts)
