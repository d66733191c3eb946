"""URLs of databases. Pure."""

from __future__ import annotations

from pathlib import Path

_SQLITE = "sqlite:///"

SQLITE_EXPECTED = "sqlite:///PATH, with a fourth slash for an absolute path: SQLite is the only database so far"


def sqlite_url(path: Path) -> str:
    """Return the URL of the SQLite database in the file `path`."""
    return f"{_SQLITE}{path}"


def sqlite_file(url: str) -> Path:
    """Return the file of the SQLite database at `url`: all that follows ``sqlite:///``.

    Raises:
        ValueError: it is another database's, or names no file; the message says what was expected, and nothing of the URL, which
            may hold a password.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/") or path == ":memory:":
        raise ValueError(SQLITE_EXPECTED)
    return Path(path)
