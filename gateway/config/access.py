"""The rights on files and folders that a configuration names: of the user who runs this, and of others who may read its secrets.

For ``gateway config --check``: nothing is made and nothing is changed. A fault that would end or hinder `gateway serve` is a
problem, one that a person should know of is a warning.
"""

from __future__ import annotations

import copy
import os
import pwd
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config.environment import FILE_SUFFIX, overlay, secret_files
from gateway.config.schema import dotted, tables
from gateway.config.settings import ListenTlsTable, Settings, TlsTable
from gateway.core.errors import Problem
from gateway.core.urls import sqlite_file

GIVEN = (Path("/run/secrets"), Path("/var/run/secrets"))
"""The folders in which container runtimes put secrets, with modes of their own."""


@dataclass(frozen=True)
class Findings:
    """The findings: `problems` keep the gateway from working, `warnings` do not."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check_access(settings: Settings, config: Path, environ: Mapping[str, str]) -> Findings:
    """Try what `settings`, read from `config` and `environ`, name, as the user who runs this."""
    problems, warnings = list[Problem](), list[Problem]()
    state = settings.gateway.state
    problems += _folder(state, "gateway.state")
    if not problems:
        problems += _state_files(state)
        warnings += _state_warnings(state)
    if (beside := sqlite_file(settings.ledger_url()).parent) != state:
        problems += _folder(beside, "ledger.url")
    for name, table in settings.destinations.items():
        if (folder := table.can.folder) is not None:
            problems += _folder(folder, f"destinations.{name}.path")
    warnings += _secrets(config, environ)
    warnings += _keys(settings)
    return Findings(tuple(problems), tuple(warnings))


def _folder(path: Path, key: str) -> Iterator[Problem]:
    """Find why the folder `path` cannot be written, or cannot be made."""
    try:
        nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
        status = nearest.stat()
    except (OSError, StopIteration) as error:
        words = error.strerror if isinstance(error, OSError) else "there is nothing of this path"
        yield Problem(str(path), key, f"a path that cannot be looked at ({words})", _right("to it and to the folders above it"))
        return
    if not stat.S_ISDIR(status.st_mode):
        what = "a file" if nearest == path else f"a path below a file ({nearest})"
        yield Problem(str(path), key, what, "a folder")
    elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
        what = "a folder" if nearest == path else f"a folder that is not there, to be made in {nearest},"
        yield Problem(str(path), key, f"{what} that {_me()} may not write ({_owned(status)})", _right("to read and write it"))


def _state_files(state: Path) -> Iterator[Problem]:
    """Find what an earlier gateway of another user left in the state folder."""
    if not state.is_dir():
        return
    for name in ("gateway.lock", "ledger.db", "ledger.db-wal", "ledger.db-shm", "spool", "transcoded", "reports", "comparing"):
        path = state / name
        if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE):
            found = f"{name} that {_me()} may not use ({_owned(path.stat())})"
            yield Problem(str(path), "gateway.state", found, "all of the state folder to belong to the user who runs the gateway")


def _state_warnings(state: Path) -> Iterator[Problem]:
    if not state.is_dir():
        return
    status = state.stat()
    if status.st_uid != os.geteuid():
        found = f"a state folder of another user ({_owned(status)})"
        expected = f"this check to be run as that user, for it was run as {_me()}"
        yield Problem(str(state), "gateway.state", found, expected)
    if stat.S_IMODE(status.st_mode) & stat.S_IRWXO:
        yield Problem(str(state), "gateway.state", f"a state folder that others may use ({_mode(status)})", f"chmod 700 {state}")


def _secrets(config: Path, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Find secrets that other users may read: in the configuration itself, and in files that it names."""
    raw = tomllib.loads(config.read_text(encoding="utf-8"))
    for path, shape, table in tables(raw):
        for file_key in secret_files(shape, table):
            key = file_key.removesuffix(FILE_SUFFIX)
            if isinstance(table.get(key), str) and (found := _readable_by_others(config)):
                yield Problem(str(config), dotted((*path, key)), f"a secret in a file that {found}", f"chmod 600 {config}")
    whole = copy.deepcopy(raw)
    overlay(whole, environ)
    for path, shape, table in tables(whole):
        for file_key in secret_files(shape, table):
            if isinstance(name := table.get(file_key), str):
                file = (config.parent / Path(name).expanduser()).absolute()
                if found := _readable_by_others(file):
                    yield Problem(str(file), dotted((*path, file_key)), f"a secret in a file that {found}", f"chmod 600 {file}")


def _keys(settings: Settings) -> Iterator[Problem]:
    """Find private keys that other users may read."""
    tls: dict[str, TlsTable | ListenTlsTable | None] = {"listen.tls.key": settings.listen.tls}
    tls |= {f"sources.{name}.tls.key": table.tls for name, table in settings.sources.items()}
    tls |= {f"destinations.{name}.tls.key": table.can.tls for name, table in settings.destinations.items()}
    seen: set[Path] = set()
    for key, table in tls.items():
        file = None if table is None else table.key
        if file is not None and file not in seen and (found := _readable_by_others(file)):
            seen.add(file)
            yield Problem(str(file), key, f"a private key that {found}", f"chmod 600 {file}")


def _readable_by_others(file: Path) -> str:
    """Say who else may read `file`; nothing where nobody may, or a container runtime put it there."""
    if any(folder in file.parents for folder in GIVEN):
        return ""
    try:
        status = file.stat()
    except OSError:
        return ""
    if not stat.S_IMODE(status.st_mode) & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH):
        return ""
    who = "everybody" if stat.S_IMODE(status.st_mode) & (stat.S_IROTH | stat.S_IWOTH) else "its group"
    return f"{who} may read or write ({_mode(status)})"


def _right(to_what: str) -> str:
    return f"the user who runs the gateway to have the right {to_what}"


def _me() -> str:
    return _user(os.geteuid())


def _owned(status: os.stat_result) -> str:
    return f"{_mode(status)}, of {_user(status.st_uid)}"


def _mode(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}"


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


_EFFECTIVE = os.access in os.supports_effective_ids
