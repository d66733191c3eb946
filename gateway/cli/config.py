"""``gateway config``: check the configuration, or show what is in effect."""

from __future__ import annotations

from gateway.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, settings_of


def config(path: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check the configuration, or show what is in effect."""
    settings_of(path)
