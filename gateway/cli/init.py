"""``gateway init``: write a commented config.toml."""


def init() -> None:
    """Write a commented config.toml."""
