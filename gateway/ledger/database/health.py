"""The health of the ledger's file: looked at before it is opened, and now and then while it is used.

SQLite notices damage only in the pages that it happens to read, and goes on with a file that was moved away or replaced. The
signs seen cheaply from outside are checked here: the file's identity, head and length. Functions raise `LedgerDamaged`, whose
message names the file, what is safe, and where the documentation says how to recover.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gateway.core.errors import LedgerDamaged, LedgerForeign

MAGIC = b"SQLite format 3\0"
HEAD_BYTES = 100
"""The database header (sqlite.org/fileformat2.html §1.3)."""

_WAL_MAGIC = 0x377F0682
_WAL_VERSION = 3007000

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

DOCUMENTED = 'docs/operations.md, "A damaged ledger", says how to recover'


def damaged(path: Path, what: str) -> LedgerDamaged:
    """Return the error that says `what` is wrong with the ledger at `path`."""
    return LedgerDamaged(
        f"the ledger {path} {what}: nothing is taken in any more (A700). Everything answered 0000 is safe in the spool beside it; "
        f"move nothing yet: {DOCUMENTED}"
    )


def foreign(path: Path) -> LedgerForeign:
    """Return the error that says that another program made the database at `path`."""
    return LedgerForeign(
        f"{path} is a database of another program, and was left as it is: move it away, or name another [gateway] state"
    )


def is_damage(error: BaseException | None) -> bool:
    """Tell whether SQLite says by `error`, or by what caused it, that the file is damaged."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", None)
        if isinstance(code, int) and code & 0xFF in _DAMAGE:
            return True
        error = getattr(error, "orig", None) or error.__cause__
    return False


@dataclass(frozen=True, slots=True)
class Sight:
    """The observation of the file: which one it is, and how long."""

    device: int
    inode: int
    length: int


def examine(path: Path, *, begun: bool = False) -> None:
    """Look into the ledger's file before anything has it open: closing it would take SQLite's locks away (POSIX, `fcntl`).

    With `begun` it has to hold something.

    Raises:
        LedgerDamaged: it is cut short or no database, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            length, head = os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from error
    wal = _size(_wal_of(path))
    if not head and begun:
        raise damaged(path, "is empty, while the spool is not")
    if not head and not wal:
        # A new one, to which nothing was ever written.
        return
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        raise damaged(path, "is no SQLite database" if head else "is empty, while its WAL is not")
    if not wal and length < _length(head):
        raise damaged(path, f"was cut short, to {length} of {_length(head)} bytes")
    if _is_foreign(path):
        raise foreign(path)


def has_foreign_wal(path: Path) -> bool:
    """Tell whether the ledger's WAL is of a version that SQLite does not open (fileformat2.html §4.1): nothing else writes one."""
    try:
        with _wal_of(path).open("rb") as file:
            head = file.read(8)
    except OSError:
        return False
    if len(head) < 8:
        return False
    magic, version = struct.unpack(">LL", head)
    return bool(magic & ~1 == _WAL_MAGIC and version != _WAL_VERSION)


def look(path: Path, before: Sight | None = None) -> Sight:
    """See from outside whether the ledger's file is still the one that was seen `before`, and no shorter.

    Raises:
        LedgerDamaged: it is gone, out of reach, another one, or cut short.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise damaged(path, "is gone") from error
    except OSError as error:
        raise damaged(path, f"cannot be reached ({error.strerror})") from error
    sight = Sight(status.st_dev, status.st_ino, status.st_size)
    if before is not None and (before.device, before.inode) != (sight.device, sight.inode):
        raise damaged(path, "was replaced by another file")
    if before is not None and sight.length < before.length:
        raise damaged(path, f"was cut short, from {before.length} to {sight.length} bytes")
    return sight


def _is_foreign(path: Path) -> bool:
    """Tell whether the database has tables of someone else only; read-only, since opening it as ours would change its head."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            columns = {row[1] for row in connection.execute("PRAGMA table_info(schema_version)")}
    except sqlite3.Error:
        # A damaged file shows its damage when it is opened.
        return False
    return bool(names) and columns != {"version"}


def _length(head: bytes) -> int:
    """Return how long the file has to be by its header; 0 where the header does not count its pages."""
    page_bytes = struct.unpack_from(">H", head, 16)[0]
    changes, pages = struct.unpack_from(">LL", head, 24)
    counted = struct.unpack_from(">L", head, 92)[0]
    return (65536 if page_bytes == 1 else page_bytes) * pages if changes == counted else 0


def _wal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
