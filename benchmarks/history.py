"""Ledgers and spools of gateways that have run for long, made in bulk: what would take days to receive takes minutes.

A ledger is made by the gateway itself, then filled by SQL without its indexes, which are built at the end. 10 million instances
take some seven gigabytes; a million that wait take one, and four of the log.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from unittest import mock

from gateway.core.domain import InstanceIdentity, Provenance
from gateway.ledger import Ledger
from gateway.ledger.received.instances import Arrival
from gateway.ledger.received.recording import record_many
from gateway.spool import Spool
from tests.support.storing import CT_STORAGE, EXPLICIT_LITTLE, data_set

ROOT = "1.2.826.0.1.3680043.10.1338.777"
DAYS = 20
"""Length of the history in days: less than a gateway remembers."""

A_STUDY, A_SEGMENT, A_BATCH = 400, 120, 5_000

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
# Spread over the whole index, as UIDs of many devices are.
_UID = f"'{ROOT}.' || (i * 2654435761 % 4294967296) || '.' || i"

_INSTANCES = f"""
INSERT INTO instances (id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, study_instance_uid, series_instance_uid, location,
    content_offset, content_length, digest, bytes_state, source, calling_ae, called_ae, address, association, received_at, routed)
{_NUMBERS}
SELECT i, {_UID}, '{CT_STORAGE}', '{EXPLICIT_LITTLE}', '{ROOT}.1.' || (i / {A_STUDY}), '{ROOT}.2.' || (i / {A_STUDY}),
    'log:' || printf('%028x', i / {A_SEGMENT}) || ':' || printf('%04x', i % {A_SEGMENT}), 512, 525000, printf('%032x', i),
    'released', 'pacs', 'PACS', 'GATEWAY', '127.0.0.1', printf('%012x', i / {A_STUDY}), :since + i * :step, 1
FROM n"""
_DELIVERIES = f"""
INSERT INTO deliveries (instance_id, destination, state, attempts, due_at, status, uncertain, lost, proof, changed_at, priority)
{_NUMBERS} SELECT i, 'archive', 'verified', 1, :since + i * :step, 0, 0, 0, 'exists', :since + i * :step, 1 FROM n"""
_ARRIVALS = f"""
INSERT INTO arrivals (instance_id, sop_instance_uid, outcome, at)
{_NUMBERS} SELECT i, {_UID}, 'new', :since + i * :step FROM n"""


def past(ledger: Path, count: int) -> None:
    """Make a ledger that remembers `count` instances, all delivered, verified and released."""
    ledger.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    Ledger(ledger).close()
    span_s = DAYS * 86_400.0
    values = {"count": count, "since": time.time() - span_s, "step": span_s / count}
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-400000", f"temp_store_directory='{ledger.parent}'"):
            connection.execute(f"PRAGMA {pragma}")
        found = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        indexes: list[tuple[str, str]] = connection.execute(found).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        for statement in (_INSTANCES, _DELIVERIES, _ARRIVALS):
            connection.execute(statement, values)
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("PRAGMA journal_mode=WAL")


def forget_since(ledger: Path, count: int) -> None:
    """Take everything out of a ledger that came after its first `count` instances."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for table, key in (("arrivals", "instance_id"), ("deliveries", "instance_id"), ("instances", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {key} > ?", (count,))


def waiting(state: Path, count: int, *, destination: str) -> None:
    """Make a state folder in which `count` small instances wait for `destination`, in the log and the ledger; unsynced."""
    state.mkdir(parents=True, mode=0o700, exist_ok=True)
    provenance = Provenance("PACS", "GATEWAY", "127.0.0.1", "history", "pacs")
    with (
        mock.patch("gateway.spool.segments.writer.sync_data", lambda _descriptor: None),
        Spool(state / "spool", reserve_bytes=1 << 24) as spool,
        Ledger(state / "ledger.db") as ledger,
    ):
        ledger.write(lambda connection: connection.exec_driver_sql("PRAGMA cache_size=-400000").close())
        for first in range(0, count, A_BATCH):
            batch = [_spooled(spool, provenance, number, destination) for number in range(first, min(first + A_BATCH, count))]
            ledger.write(lambda connection, batch=batch: record_many(connection, batch))  # type: ignore[misc]


def _spooled(spool: Spool, provenance: Provenance, number: int, destination: str) -> Arrival:
    uid, study = f"{ROOT}.3.{number}", f"{ROOT}.1.{number // A_STUDY}"
    writer = spool.create(InstanceIdentity(CT_STORAGE, uid, EXPLICIT_LITTLE), provenance)
    writer.write([memoryview(data_set(uid, study=study))])
    identity = InstanceIdentity(CT_STORAGE, uid, EXPLICIT_LITTLE, study, f"{study}.1")
    return Arrival(identity, provenance, writer.commit(), (destination,), time.time())
