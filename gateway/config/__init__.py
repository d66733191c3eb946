"""Configuration: settings, the types of their values, reading and checking config.toml, and what is said about it."""
