"""Advice on the settings of peers of known kinds. Pure.

A peer is known by the Implementation Version Name of its associations (PS3.7 §D.3.3.2). Each piece of advice was measured with the
real peer (`docs/peers.md`). Of a peer of an unknown kind nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.settings import DestinationTable, SourceTable

DCMTK = "OFFIS_DCMTK_"
"""dcmqrscp and storescp of DCMTK, and every Orthanc, which is built on it."""


def advice(table: SourceTable | DestinationTable, implementation_version: str) -> Iterator[str]:
    """Yield what to change in `table`, whose peer named itself `implementation_version`; nothing where all is as it should be.

    A table with ``rest`` is an Orthanc's: what only dcmqrscp needs is not said of it.
    """
    if not implementation_version.startswith(DCMTK):
        return
    can = table.can
    if can.store > 1 and can.rest is None:
        yield (
            "if it is dcmqrscp: associations = 1, because it gives two instances one file when two associations store at once "
            "(3.6.7 and 3.6.9)"
        )
    if can.rest is None and can.dicomweb is None:
        yield (
            'if it is an Orthanc: [….rest] or [….dicomweb], or "DefaultEncoding": "Utf8" in its configuration, because it answers '
            "C-FIND in that character set only and drops what it cannot hold"
        )
