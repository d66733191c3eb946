"""``gateway config``: check the configuration, or show what is in effect."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from gateway.cli.output import render
from gateway.core.errors import ConfigurationError, Problem


def config(
    *,
    path: ConfigOption = DEFAULT_CONFIG,
    show_it: Annotated[bool, typer.Option("--show", help="Print the effective settings without secrets.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check; certificates, keys and folders too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration (--check, what happens without options), or show what is in effect (--show)."""
    from gateway.config import show
    from gateway.config.access import check_access
    from gateway.config.loading import load_with_origins
    from gateway.config.schema import dotted
    from gateway.security import tls

    loaded = load_with_origins(path, os.environ)
    warnings: tuple[Problem, ...] = ()
    if check or not show_it:
        tls.check_contexts(loaded.settings)
        found = check_access(loaded.settings, path, os.environ)
        warnings = found.warnings
        for warning in () if as_json else warnings:
            render.say(f"warning: {warning}", err=True)
        if found.problems:
            raise ConfigurationError(found.problems)
    if show_it and as_json:
        origins = {dotted(key): name for key, name in loaded.origins.items()}
        typer.echo(json.dumps({"settings": show.plain(loaded.settings), "environment": origins}, indent=2, ensure_ascii=False))
    elif show_it:
        typer.echo(show.as_toml(loaded.settings, loaded.origins), nl=False)
    elif as_json:
        typer.echo(json.dumps({"ok": True, "file": str(path), "warnings": [str(warning) for warning in warnings]}))
    else:
        render.say(f"{path}: no problem found")
