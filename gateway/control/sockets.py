"""The control socket's place on disk: a Unix socket in the state folder that only its owner may open.

A Unix socket's address holds 107 bytes. Where the state folder's path is longer, Linux reaches the socket through a
descriptor of the folder (``/proc/self/fd/N/control.sock``); elsewhere a clear error asks for a shorter path.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.core.errors import UsageError

SOCKET_NAME = "control.sock"

MAX_ADDRESS_BYTES = 107
"""``sun_path`` has 108 bytes on Linux, the last one a NUL; the BSDs and macOS have 104."""


@contextmanager
def short_address(state: Path) -> Iterator[str]:
    """Give an address of the control socket that fits; valid inside the ``with`` only, for ``bind`` and ``connect``.

    Raises:
        UsageError: the path is too long and this system has no way around it.

    """
    address = str(state.absolute() / SOCKET_NAME)
    if len(os.fsencode(address)) <= MAX_ADDRESS_BYTES - (0 if sys.platform == "linux" else 4):
        yield address
        return
    if sys.platform != "linux":
        raise UsageError(f"the path of the state folder is too long for a Unix socket: {address}; choose a shorter [gateway] state")
    descriptor = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def listen(state: Path) -> socket.socket:
    """Bind the control socket in `state`, mode 0600, in place of one that a killed gateway left behind.

    The caller holds the lock of the state folder, so whatever is there belongs to nobody alive.

    Raises:
        UsageError: the path is too long for a Unix socket.

    """
    (state / SOCKET_NAME).unlink(missing_ok=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(state) as address:
            control.bind(address)
        (state / SOCKET_NAME).chmod(0o600)
        control.listen(64)
    except BaseException:
        control.close()
        raise
    return control


def answers(state: Path) -> bool:
    """Tell whether a gateway listens on the control socket in `state`."""
    if not state.is_dir():
        return False
    with short_address(state) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True
