"""Queries about instances: recording arrivals, where their bytes are, which of them are kept."""
