"""Asking a source for instances: by C-MOVE or C-GET, and which of the two."""
