"""Names in the spool. Pure.

::

    spool/incoming/TOKEN.part           being written; swept at start
    spool/instances/XX/TOKEN.dcm        durable; XX are the first two characters of TOKEN
    spool/corrupt/TOKEN.dcm             not what was written; for a person to look at

A location is ``spool:TOKEN``, or ``file:SIZE:MTIME:PATH`` for a file sent in place: its size in bytes and modification time in
nanoseconds are part of the name, so a file that changed is another location. PATH is percent-encoded where it is not
printable ASCII, because a file name is bytes and a ledger's text is not.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

INCOMING = "incoming"
INSTANCES = "instances"
CORRUPT = "corrupt"
PARTIAL_SUFFIX = ".part"
SUFFIX = ".dcm"

BUCKETS = tuple(f"{number:02x}" for number in range(256))

_SPOOLED = re.compile(r"spool:([0-9a-f]{32})")
_IN_PLACE = re.compile(r"file:(\d{1,20}):(-?\d{1,20}):(.+)")
_TOKEN_FILE = re.compile(r"([0-9a-f]{32})\.dcm")
_READABLE = "/ !#$&'()+,-./:;=@[]^_{}~"


@dataclass(frozen=True, slots=True)
class InPlace:
    """A file sent from where it lies, as it was when it was registered."""

    path: Path
    size: int
    modified_ns: int


def new_token() -> str:
    """Return an unguessable name of 32 hexadecimal digits that never was used."""
    return secrets.token_hex(16)


def location_of(token: str) -> str:
    """Return the location of a spooled instance."""
    return f"spool:{token}"


def token_of(location: str) -> str | None:
    """Return the token of a spooled location, None for any other."""
    match = _SPOOLED.fullmatch(location)
    return match[1] if match else None


def bucket_prefix(bucket: str) -> str:
    """Return what the locations of all instances in folder `bucket` start with."""
    return f"spool:{bucket}"


def token_of_file(name: str) -> str | None:
    """Return the token that a file's name in ``instances`` stands for, None for a name that is not ours."""
    match = _TOKEN_FILE.fullmatch(name)
    return match[1] if match else None


def file_location(path: Path, *, size: int, modified_ns: int) -> str:
    """Return the location of a file in place; `path` is absolute, `size` in bytes, `modified_ns` since the epoch."""
    return f"file:{size}:{modified_ns}:{quote(os.fsencode(path), safe=_READABLE)}"


def in_place(location: str) -> InPlace | None:
    """Return what a ``file:`` location names, None for any other."""
    match = _IN_PLACE.fullmatch(location)
    if match is None:
        return None
    return InPlace(Path(os.fsdecode(unquote_to_bytes(match[3]))), int(match[1]), int(match[2]))


def relative_path(token: str) -> str:
    """Return where a durable instance lies, relative to the spool's folder."""
    return f"{INSTANCES}/{token[:2]}/{token}{SUFFIX}"


def partial_path(token: str) -> str:
    """Return where an instance is written, relative to the spool's folder."""
    return f"{INCOMING}/{token}{PARTIAL_SUFFIX}"
