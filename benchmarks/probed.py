"""``python probed.py REPORT COMMAND…``: the gateway's command line with a thread beside it that asks for the lock.

The thread sleeps 2 ms at a time, outside the interpreter lock, and has to have the lock to go on: it stands for every thread that
comes out of a system call. The time it waited for the lock is its delay beyond the 2 ms, less the time that the kernel had it
waiting for a core (``schedstat``). When the gateway ends, the waits go to REPORT as JSON: a list of [UTC seconds since the epoch,
seconds waited].
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

PAUSE_S = 0.002

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1000
"""Linux may otherwise let a sleep last 50 µs longer."""


class Probe:
    """Samples of how long a thread waits for the lock, taken until the process ends."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        """Take samples; to run on a daemon thread."""
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
        descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        queued_s = _queued_s(descriptor)
        while True:
            began = time.monotonic()
            time.sleep(PAUSE_S)
            late_s = time.monotonic() - began - PAUSE_S
            before_s, queued_s = queued_s, _queued_s(descriptor)
            self.samples.append((time.time(), max(0.0, late_s - (queued_s - before_s))))


def _queued_s(descriptor: int) -> float:
    """Return how long this thread has been ready to run and without a core, since it began."""
    return int(os.pread(descriptor, 100, 0).split()[1]) / 1e9


def _run() -> None:
    from gateway.cli import main

    report, probe = Path(sys.argv.pop(1)), Probe()
    threading.Thread(target=probe.run, name="probe", daemon=True).start()
    try:
        main()
    finally:
        report.write_text(json.dumps(list(probe.samples)))


if __name__ == "__main__":
    _run()
