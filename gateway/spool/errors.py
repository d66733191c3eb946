"""The spool's errors for those of the operating system."""

from __future__ import annotations

import errno

from gateway.core.errors import SpoolError, SpoolFull, SpoolIOError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_error(what: str, error: OSError) -> SpoolError:
    """Return the spool's error for the operating system's `error` while doing `what`."""
    kind = SpoolFull if error.errno in _NO_ROOM else SpoolIOError
    return kind(f"{what}: {error.strerror or error.__class__.__name__}")
