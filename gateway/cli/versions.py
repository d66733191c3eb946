"""``gateway --version``: what is installed here, as a report of a fault needs it."""

from __future__ import annotations

import platform
import sqlite3
import ssl
from importlib.metadata import PackageNotFoundError, version

from gateway import __version__

CODECS = ("pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "imagecodecs")
"""The packages that decode and encode pixels, by the name under which they are installed."""


def text() -> str:
    """Return a line each for the gateway, its codecs, Python, OpenSSL and SQLite."""
    codecs = ", ".join(f"{name} {_version(name)}" for name in CODECS)
    return "\n".join(
        (
            f"gateway {__version__}",
            f"codecs: {codecs}",
            f"Python {platform.python_version()} ({platform.system()} {platform.machine()})",
            ssl.OPENSSL_VERSION,
            f"SQLite {sqlite3.sqlite_version}",
        )
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
