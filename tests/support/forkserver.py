"""Starts gateways quickly: imports them once, then forks one a command, stopped before its first own instruction.

Run as ``python -m tests.support.forkserver``. Each line on standard input is JSON: ``{"argv": […], "log": PATH}``; the answer is
the process id. The child has stopped itself by SIGSTOP, so that a tracer can attach before SIGCONT starts it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import NoReturn

import gateway.cli
from gateway.spool.segments import pool

# So that a few instances fill a segment, and gateways that are killed were freeing and renewing some.
SEGMENT_BYTES = 64 * 1024
FIRST_BYTES = 16 * 1024

# Modules that `serve` imports only when it runs.
PRELOADED = (
    "gateway.app.lifecycle",
    "gateway.app.assembly",
    "gateway.app.stages",
    "gateway.cli.commands.serve",
    "gateway.config.loading",
    "gateway.core.log",
    "gateway.app.engine",
    "gateway.control.server",
    "gateway.control.api",
    "gateway.control.running",
    "gateway.control.commands.status",
    "gateway.control.commands.detaching",
    "gateway.control.commands.migrating",
    "sqlalchemy.dialects.sqlite",
    "pydicom",
    "zipfile",
)


def _preload() -> None:
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:
            continue


def _child(argv: list[str], log: str) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, number)
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        status = gateway.cli.run(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Serve until standard input ends."""
    _preload()
    pool.SEGMENT_BYTES, pool.FIRST_BYTES = SEGMENT_BYTES, FIRST_BYTES
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order["argv"], order["log"])
        print(pid, flush=True)


if __name__ == "__main__":
    main()
