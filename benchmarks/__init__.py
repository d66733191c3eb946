"""Measurements of the gateway against real peers on one machine: ``python -m benchmarks``. What each file holds is in README.md."""
