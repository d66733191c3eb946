"""Having the kernel write a large instance while it is still coming, so that the sync at its end has little left to wait for.

Only Linux has it (``sync_file_range``), and not every C library; elsewhere nothing is done, and nothing is lost but time.
An error in the background is told by the sync that follows: beginning to write does not take an error off the file.
"""

from __future__ import annotations

import ctypes
import sys

EARLY_BYTES = 8 * 1024 * 1024
"""The bytes written before the disk is set to work on them."""

_WRITE = 2
_begin = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
if _begin is not None:
    _begin.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel begin to write `length` bytes from `offset` of a file to disk, without waiting. Never raises."""
    if _begin is not None:
        _begin(descriptor, offset, length, _WRITE)
