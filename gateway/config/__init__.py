"""Reading the configuration: config.toml, then the environment, validated as a whole.

`load` either returns frozen settings or raises one ConfigurationError with every problem. Relative paths are relative to
the configuration file's folder. The environment overrides the file: ``GATEWAY__SECTION__KEY``, and for secrets
``GATEWAY__SECTION__KEY_FILE`` names a file that holds the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.settings import Settings


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the effective settings: those of the file `path`, overridden by `environ`, validated as a whole.

    Raises ConfigurationError with every problem of the configuration at once.
    """
    raise NotImplementedError
