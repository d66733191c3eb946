"""The files of a configuration: secrets kept in files, relative paths, files that must exist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.config.environment import FILE_SUFFIX, secret_files
from gateway.config.problems import Finding
from gateway.config.schema import KeyPath, Raw, tables, values
from gateway.config.settings import LEDGER_NAME, GatewayTable
from gateway.config.value_types import MustExist
from gateway.core.urls import sqlite_file, sqlite_url


def read_secrets(raw: Raw, folder: Path) -> Iterator[Finding]:
    """Put the content of each secret's ``…_file`` into its key, in place; a line end at the end is no part of it.

    `folder` is what relative names are relative to.
    """
    for path, shape, table in list(tables(raw)):
        for file_key in secret_files(shape, table):
            if file_key in table:
                yield from _read_secret(path, table, file_key, folder)


def _read_secret(path: KeyPath, table: Raw, file_key: str, folder: Path) -> Iterator[Finding]:
    key, name = file_key.removesuffix(FILE_SUFFIX), table.pop(file_key)
    if key in table:
        yield Finding((*path, file_key), f"{key} as well", f"either {key} or {file_key}")
    elif not isinstance(name, str):
        yield Finding((*path, file_key), "no file name", "the name of a file that holds the secret")
    else:
        try:
            table[key] = _absolute(name, folder).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text, or no file name"
            yield Finding((*path, file_key), f'"{name}" ({reason})', "a readable file that holds the secret")


def resolve_paths(raw: Raw, folder: Path) -> Iterator[Finding]:
    """Make every path of `raw` absolute, in place, and find the files that have to exist and do not.

    Where none is there of those that ``gateway certs`` makes, nobody has made any yet: that is said once, with the command.
    """
    # The state folder lies beside the configuration also where the file does not name it.
    ours = raw.setdefault("gateway", {})
    if isinstance(ours, dict):
        ours.setdefault("state", str(GatewayTable().state))
    _resolve_ledger(raw, folder)
    wanted: list[tuple[KeyPath, Path]] = []
    for place in list(values(raw)):
        if place.shape.annotation is Path and isinstance(place.value, str) and place.value:
            file = _absolute(place.value, folder)
            place.table[str(place.path[-1])] = str(file)
            field = place.shape.field
            if field is not None and any(isinstance(item, MustExist) for item in field.metadata):
                wanted.append((place.path, file))
    if wanted and not any(file.exists() for _, file in wanted) and _of_one_making(wanted):
        yield _none_yet(wanted)
        return
    for path, file in wanted:
        if not _readable(file):
            expected = "a readable PEM file" if file.exists() else "a readable PEM file (`gateway certs` makes certificates)"
            yield Finding(path, f"{file} ({'not readable' if file.exists() else 'no such file'})", expected)


def _resolve_ledger(raw: Raw, folder: Path) -> None:
    """Say where the ledger is: at its URL, whose path is relative to `folder`, or in the state folder."""
    ledger, ours = raw.setdefault("ledger", {}), raw.get("gateway")
    if not isinstance(ledger, dict):
        return
    state = ours.get("state") if isinstance(ours, dict) else None
    if "url" not in ledger and isinstance(state, str) and state:
        ledger["url"] = sqlite_url(_absolute(state, folder) / LEDGER_NAME)
    elif isinstance(url := ledger.get("url"), str):
        # One that is no such URL is found by `gateway.config.checks`.
        with suppress(ValueError):
            ledger["url"] = sqlite_url(_absolute(str(sqlite_file(url)), folder))


def _of_one_making(wanted: Sequence[tuple[KeyPath, Path]]) -> bool:
    """Tell whether all files have the places and names that ``gateway certs`` gives them in one folder."""
    cas = [file.name for path, file in wanted if path[-1] == "ca"]
    return len({file.parent for _, file in wanted}) == 1 and set(cas) == {"ca.crt"}


def _none_yet(wanted: Sequence[tuple[KeyPath, Path]]) -> Finding:
    """Return what is said before there are certificates."""
    path, first = wanted[0]
    files = list(dict.fromkeys(file.name for _, file in wanted))
    where = "" if first.parent == Path("certs").absolute() else f" --folder {first.parent}"
    return Finding(
        path[:-1], f"no certificates yet ({', '.join(files)} in {first.parent})", f"them to be there: run `gateway certs{where}`"
    )


def _absolute(name: str, folder: Path) -> Path:
    try:
        return (folder / Path(name).expanduser()).absolute()
    except RuntimeError:
        # A tilde before what is no user's name is part of the name.
        return (folder / name).absolute()


def _readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)
