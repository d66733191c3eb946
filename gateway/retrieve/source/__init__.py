"""A source as retrievals use it: associations kept open, move slots, acceptance orders."""
