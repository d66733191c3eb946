"""The composition root: builds a gateway out of its rooms, starts it, drains it, and keeps house while it runs."""
