"""Queries about jobs: retrievals, migrations, detached commands, and starts that came to no end."""
