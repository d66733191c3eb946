"""The effective settings as TOML or as plain data, without secrets. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from gateway.config.schema import KeyPath
from gateway.config.settings import Settings

HIDDEN = "(hidden)"

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def plain(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON data: secrets hidden, what is not set left out."""
    return {key: _hidden(value) for key, value in settings.model_dump(exclude_none=True).items()}


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    if isinstance(value, SecretStr):
        return HIDDEN
    return value if isinstance(value, bool | int | float) else str(value)


def as_toml(settings: Settings, origins: Mapping[KeyPath, str]) -> str:
    """Return the settings as TOML; a comment names the environment variable that a value came from."""
    return "\n".join(_table(plain(settings), (), origins)).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: KeyPath, origins: Mapping[KeyPath, str]) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, dict) and not _is_tables(value):
            yield _line(key, value, origins.get((*path, key)))
    for key, value in table.items():
        inner = (*path, key)
        if _is_tables(value):
            for item in value:
                yield from ("", f"[[{_header(inner)}]]{_origin(origins.get(inner))}", *_inline(item))
        elif isinstance(value, dict) and value:
            yield from _headed(value, inner, origins)


def _headed(table: Mapping[str, Any], path: KeyPath, origins: Mapping[KeyPath, str]) -> Iterator[str]:
    if any(not isinstance(value, dict) for value in table.values()):
        yield from ("", f"[{_header(path)}]")
    yield from _table(table, path, origins)


def _inline(table: Mapping[str, Any]) -> Iterator[str]:
    return (_line(key, value, None) for key, value in table.items())


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _line(key: str, value: Any, variable: str | None) -> str:
    return f"{_key(key)} = {toml_value(value)}{_origin(variable)}"


def _origin(variable: str | None) -> str:
    return f"  # from {variable}" if variable else ""


def _header(path: KeyPath) -> str:
    return ".".join(_key(str(segment)) for segment in path)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def toml_value(value: Any) -> str:
    """Write plain data as a TOML value on one line."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {toml_value(item)}" for key, item in value.items()) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)
