"""UIDs as names of files and folders: one name for each UID, whatever it is made of, and no name for two. Pure.

A UID as PS3.5 §9.1 wants it is its own name. Any other is quoted: a name that begins with ``%``, in which every character but lower
case letters, digits, dots, ``-`` and ``_`` stands as ``%`` and two hexadecimal digits, and so does the first one. Upper case is
quoted because shares may not tell it from lower case. A name that would be too long becomes ``%%`` and a digest, from which the
UID cannot be read back.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

from gateway.core.domain import is_conforming_uid, is_uid

UNKNOWN = "unknown"
"""The name of what has no UID."""

MAX_LENGTH = 200
"""The longest quoted name: file systems take 255 bytes, of which some are for what is added to it."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_DIGEST = re.compile(r"%%[0-9a-f]{40}")


def name_of(uid: str) -> str:
    """Return the name for `uid`, `UNKNOWN` where it is empty or none."""
    if is_conforming_uid(uid) and uid[0].isdigit():
        return uid
    if not is_uid(uid):
        return UNKNOWN
    raw = uid.encode("latin-1")
    quoted = "".join(chr(byte) if place and chr(byte) in _PLAIN else f"%{byte:02x}" for place, byte in enumerate(raw))
    if quoted.endswith("."):
        quoted = f"{quoted[:-1]}%2e"
    return quoted if len(quoted) <= MAX_LENGTH else f"%%{hashlib.sha256(raw).hexdigest()[:40]}"


def uid_of(name: str) -> str | None:
    """Return the UID that has this `name`; None for a digest, and for what is no name of a UID."""
    uid = unquote(name, "latin-1") if name.startswith("%") else name
    return uid if name != UNKNOWN and is_uid(uid) and name_of(uid) == name else None


def is_digest(name: str) -> bool:
    """Tell whether `name` stands for a UID that cannot be read back from it."""
    return _DIGEST.fullmatch(name) is not None
