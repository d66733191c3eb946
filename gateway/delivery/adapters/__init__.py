"""One adapter for each kind of destination, and what they need to know of it."""
