"""Measurements of the gateway against real peers on one machine: ``python -m benchmarks``. README.md describes each file."""
