"""The ports of ``[listen]``, opened once something needs a caller: at the start of `serve`, else for C-MOVE or commitment reports.

A command that only sends needs nobody to call it, so another program on the port is no hindrance to it.
"""

from __future__ import annotations

import errno
from pathlib import Path

import trio

from gateway.association.scp.acceptor import Acceptor, CannotListen
from gateway.config.settings import ListenTable
from gateway.core.errors import ConfigurationError, Problem


class Listener:
    """Opens the acceptor's ports once. Methods are for the trio thread."""

    def __init__(self, acceptor: Acceptor, table: ListenTable) -> None:
        self._acceptor = acceptor
        self._table = table
        self._opening = trio.Lock()
        self._open = False

    async def open(self) -> None:
        """Listen, unless that is so already.

        Raises:
            ConfigurationError: a port cannot be listened on; it says which, who has it where that can be told, and what to do.
        """
        async with self._opening:
            if not self._open:
                await trio.to_thread.run_sync(self._listen)
                self._open = True

    def _listen(self) -> None:
        try:
            self._acceptor.start()
        except CannotListen as error:
            raise ConfigurationError([problem(error, self._table)]) from error


def problem(error: CannotListen, table: ListenTable) -> Problem:
    """Return what is wrong with a port, and what to change."""
    tls = table.tls is not None and error.port == table.tls.port
    where, other = ("[listen.tls]", "GATEWAY__LISTEN__TLS__PORT") if tls else ("[listen]", "GATEWAY__LISTEN__PORT")
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(error.port) or "another program"
        found = f"{error.port}, which is in use: {holder} listens on it"
        return Problem(where, "port", found, f"a free port: stop that program, or change `port` of {where} ({other})")
    if error.errno in {errno.EACCES, errno.EPERM}:
        found = f"{error.port}, which this user may not listen on"
        return Problem(where, "port", found, "a port from 1024 on, or the capability CAP_NET_BIND_SERVICE")
    found = f"{error.host}, port {error.port} ({error.strerror or error})"
    return Problem(where, "host, port", found, "an address of this machine to listen on")


def holder_of(port: int, proc: Path = Path("/proc")) -> str:
    """Return who listens on a TCP port, as ``name (process 123)``; empty where the system does not tell us."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(descriptor.readlink()) in sockets for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            # It is another user's, or has ended.
            continue
    return ""


_LISTEN = "0A"


def _listening(table: Path, port: int) -> list[str]:
    """Return the inodes of the sockets that listen on `port`, by a table of the kernel's."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]
