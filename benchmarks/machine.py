"""The machine and the programs that the figures were taken with."""

from __future__ import annotations

import os
import platform
import sqlite3
import ssl
import subprocess
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def machine(folder: Path) -> dict[str, Any]:
    """Return cores, processor, memory, the file system of `folder`, and the versions of everything that takes part."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _last_line("df", "--output=fstype", str(folder)),
        "gateway": " ".join(filter(None, (version("dicom-gateway"), _commit()))),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION.split()[1],
        "sqlite": sqlite3.sqlite_version,
        "pynetdicom": version("pynetdicom"),
        "dcmtk": _word("dcmsend", "--version", after="dcmsend"),
        "orthanc": _word("/usr/sbin/Orthanc", "--version", after="Orthanc"),
    }


def sentence(found: dict[str, Any]) -> str:
    """Say it in a sentence for people."""
    return (
        f"{found['cores']} cores ({found['processor']}), {found['memory_gib']} GiB, {found['system']}, {found['file_system']}; "
        f"gateway {found['gateway']}, Python {found['python']}, OpenSSL {found['openssl']}, SQLite {found['sqlite']}; "
        f"DCMTK {found['dcmtk']}, Orthanc {found['orthanc']}, pynetdicom {found['pynetdicom']}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """Return the commit in parentheses, with a plus where files were changed since; nothing outside a repository."""
    commit = _last_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    if not commit:
        return ""
    changed = _last_line("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", "gateway")
    return f"({commit}{'+' if changed else ''})"


def _word(*command: str, after: str) -> str:
    """Return the word that follows the name `after`, with or without its path, in what a program says of itself."""
    words = _said(*command).replace("$", " ").replace(":", " ").split()
    return next((word for before, word in pairwise(words) if before.endswith(after)), "?").removeprefix("v")


def _last_line(*command: str) -> str:
    return next(iter(reversed(_said(*command).strip().splitlines())), "").strip()


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
