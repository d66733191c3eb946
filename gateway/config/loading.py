"""Reading the configuration: config.toml, then the environment, validated as a whole.

`load` either returns frozen settings or raises one ConfigurationError with every problem. Relative paths are relative to
the configuration file's folder. The environment overrides the file: ``GATEWAY__SECTION__KEY``. A secret may be kept in
a file: ``password_file = "…"`` in place of ``password``, or ``GATEWAY__…__PASSWORD_FILE``.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gateway.config.checks import check
from gateway.config.environment import overlay
from gateway.config.files import read_secrets, resolve_paths
from gateway.config.lines import index_lines
from gateway.config.problems import Finding, Whereabouts, findings
from gateway.config.schema import KeyPath, Raw
from gateway.config.settings import Settings
from gateway.core.errors import ConfigurationError, Problem


@dataclass(frozen=True)
class Loaded:
    """Settings, and which of their key paths came from which environment variable."""

    settings: Settings
    origins: Mapping[KeyPath, str]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the effective settings: those of the file `path`, overridden by `environ`, validated as a whole.

    Raises ConfigurationError with every problem of the configuration at once.
    """
    return load_with_origins(path, environ).settings


def load_with_origins(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Load as `load` does, and tell what came from the environment. Raises ConfigurationError."""
    text = _read(path)
    raw = _parse(text, path)
    origins, problems = overlay(raw, environ)
    whereabouts = Whereabouts(path, index_lines(text), origins)
    wrong = [*read_secrets(raw, path.parent), *resolve_paths(raw, path.parent), *check(raw)]
    settings, invalid = _validate(raw)
    problems += [whereabouts.problem(finding) for finding in (*invalid, *wrong)]
    if settings is None or problems:
        raise ConfigurationError(sorted(problems, key=lambda problem: _order(problem, path)))
    return Loaded(settings, origins)


def check_text(text: str, path: Path) -> None:
    """Check a configuration that is to be written to `path`; the files that it names need not be there yet.

    Raises ConfigurationError with every problem at once.
    """
    raw = _parse(text, path)
    _, invalid = _validate(raw)
    whereabouts = Whereabouts(path, index_lines(text), {})
    if problems := [whereabouts.problem(finding) for finding in (*invalid, *check(raw))]:
        raise ConfigurationError(problems)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(
            [Problem(str(path), "(file)", "no such file", "a configuration (`gateway init` writes one)")]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else "bytes that are not UTF-8"
        raise ConfigurationError([Problem(str(path), "(file)", found, "a readable file in UTF-8")]) from error


def _parse(text: str, path: Path) -> Raw:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([Problem(str(path), "(syntax)", str(error), "valid TOML")]) from error


def _validate(raw: Raw) -> tuple[Settings | None, list[Finding]]:
    try:
        return Settings.model_validate(copy.deepcopy(raw)), []
    except ValidationError as error:
        return None, list(findings(error, raw))


def _order(problem: Problem, path: Path) -> tuple[int, str]:
    """Sort problems as the file goes, the environment's after them."""
    line = problem.where.removeprefix(f"{path}:")
    return (int(line) if line.isdecimal() else 1_000_000_000, problem.where)
