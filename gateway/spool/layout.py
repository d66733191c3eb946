"""Names in the spool. Pure.

::

    spool/segments/TOKEN.log            records of instances, one after another (`gateway.spool.segments.record`)
    spool/segments/TOKEN.spare          a segment to be written anew; nothing that it held counts any more
    spool/instances/XX/NAME.dcm         an instance in a file of its own; XX are the first two characters of NAME
    spool/incoming/NAME.part            such a file being written; swept at start
    spool/corrupt/NAME.dcm              not what was written; for a person to look at

A location is ``log:TOKEN:BLOCK`` for the record that begins at that block (of 4096 bytes) of a segment, ``spool:NAME`` for a file
of its own, or ``file:SIZE:MTIME:PATH`` for a file sent in place: its size in bytes and modification time in nanoseconds are part
of the name, so a file that changed is another location. PATH is percent-encoded where it is not printable ASCII, because a file
name is bytes and a ledger's text is not.

A segment's token begins with the time at which it was made and goes on with what nobody can guess: locations grow with time, so
that an index of them grows at its end, and no peer can send bytes that pass for a record of the segment that they come to lie in.
A record that is moved out of its segment has the same digits in its file's name: each location can be told from the other.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

SEGMENTS = "segments"
INCOMING = "incoming"
INSTANCES = "instances"
CORRUPT = "corrupt"
PARTIAL_SUFFIX = ".part"
SUFFIX = ".dcm"
LOG_SUFFIX = ".log"
SPARE_SUFFIX = ".spare"

BLOCK_BYTES = 4096
"""Records begin at multiples of it: no write touches a block of an earlier record."""

LOG_PREFIX = "log:"

BUCKETS = tuple(f"{number:02x}" for number in range(256))

_LOGGED = re.compile(r"log:([0-9a-f]{28}):([0-9a-f]{4})")
_SEGMENT_FILE = re.compile(r"([0-9a-f]{28})(\.log|\.spare)")
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


def new_segment(now: float) -> str:
    """Return an unguessable name of 28 hexadecimal digits for a segment made `now` (UTC seconds since the epoch)."""
    return f"{int(now * 1000) & 0xFFFFFFFFFFFF:012x}{secrets.token_hex(8)}"


def begun_at(token: str) -> float:
    """Return when the segment was made, in UTC seconds since the epoch."""
    return int(token[:12], 16) / 1000


def segment_of_file(name: str) -> tuple[str, str] | None:
    """Return token and suffix of a file's name in ``segments``, None for a name that is not ours."""
    match = _SEGMENT_FILE.fullmatch(name)
    return (match[1], match[2]) if match else None


def segment_path(token: str, suffix: str = LOG_SUFFIX) -> str:
    """Return where a segment lies, relative to the spool's folder."""
    return f"{SEGMENTS}/{token}{suffix}"


def segment_prefix(token: str) -> str:
    """Return what the locations of all records of a segment start with."""
    return f"{LOG_PREFIX}{token}:"


SEGMENT_PREFIX_LENGTH = len(segment_prefix("0" * 28))


def record_location(token: str, offset: int) -> str:
    """Return the location of the record at `offset` bytes of a segment."""
    return f"log:{token}:{offset // BLOCK_BYTES:04x}"


def record_of(location: str) -> tuple[str, int] | None:
    """Return token and offset in bytes of a ``log:`` location, None for any other."""
    match = _LOGGED.fullmatch(location)
    return (match[1], int(match[2], 16) * BLOCK_BYTES) if match else None


def moved_token(token: str, offset: int) -> str:
    """Return the name of the file that the record at `offset` of a segment gets when it is moved out."""
    return f"{offset // BLOCK_BYTES:04x}{token}"


def twin_of(location: str) -> str | None:
    """Return the ``spool:`` location that a record is moved out to, or the ``log:`` one that such a file comes from; else None."""
    place = record_of(location)
    if place is not None:
        return location_of(moved_token(*place))
    token = token_of(location)
    return None if token is None else f"{LOG_PREFIX}{token[4:]}:{token[:4]}"


def new_token() -> str:
    """Return a name of 32 hexadecimal digits that never was used."""
    return secrets.token_hex(16)


def location_of(token: str) -> str:
    """Return the location of an instance in a file of its own."""
    return f"spool:{token}"


def token_of(location: str) -> str | None:
    """Return the token of a ``spool:`` location, None for any other."""
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
    """Return where an instance in a file of its own lies, relative to the spool's folder."""
    return f"{INSTANCES}/{token[:2]}/{token}{SUFFIX}"


def partial_path(token: str) -> str:
    """Return where a file of its own is written, relative to the spool's folder."""
    return f"{INCOMING}/{token}{PARTIAL_SUFFIX}"
