"""Options that every command has, and how a command gets its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gateway.core.domain import Priority

if TYPE_CHECKING:
    from gateway.config.settings import Settings

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="GATEWAY_CONFIG", help="The configuration file.", show_default=True, dir_okay=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON for machines instead of text.")]
PriorityOption = Annotated[
    Literal["low", "normal", "high"],
    typer.Option("--priority", help="The order where not everything can go at once: high overtakes all that is under way."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be moved, and move nothing.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the deliveries.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out what the destinations hold already.")]
Detach = Annotated[bool, typer.Option("--detach", help="Leave it to the running gateway (gateway jobs).")]

DEFAULT_CONFIG = Path("config.toml")


def priority_of(word: str) -> Priority:
    """Return the priority that an option names."""
    return Priority[word.upper()]


def settings_of(path: Path) -> Settings:
    """Load the settings of the configuration file `path` and this process's environment.

    Raises ConfigurationError with every problem at once.
    """
    from gateway.config import loading

    return loading.load(path, os.environ)
