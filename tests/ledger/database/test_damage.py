"""A ledger that is damaged, cut short, replaced, or another program's: found, named, and nothing is read or written any more."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from gateway.core.errors import LedgerDamaged, LedgerError, LedgerForeign, LedgerTooNew, LedgerUnavailable
from gateway.ledger import Ledger
from gateway.ledger.peers import learned

ROWS = 300


def filled(path: Path) -> Path:
    """Make a ledger of a few hundred pages, closed in order."""
    with Ledger(path) as ledger:
        ledger.write(_fill)
    return path


def _fill(connection: Connection) -> None:
    for number in range(ROWS):
        learned.put(connection, f"source:{number}", "fact", "x" * 3000, now=1.0)


def read_all(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return len(learned.all_of(connection, "fact", now=2.0))


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _cut(path: Path, length: int) -> None:
    os.truncate(path, length)


def _sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


AT_START: dict[str, tuple[Callable[[Path], object], type[LedgerError], str]] = {
    "its head is nonsense": (lambda path: _overwrite(path, 0, b"\xff" * 100), LedgerDamaged, "no SQLite database"),
    "its head is zeros": (lambda path: _overwrite(path, 0, bytes(4096)), LedgerDamaged, "no SQLite database"),
    "it is a text": (lambda path: path.write_text("hello"), LedgerDamaged, "no SQLite database"),
    "it is one byte": (lambda path: _cut(path, 1), LedgerDamaged, "no SQLite database"),
    "it is cut to half": (lambda path: _cut(path, path.stat().st_size // 2), LedgerDamaged, "cut short"),
    "it lacks its last page": (lambda path: _cut(path, path.stat().st_size - 4096), LedgerDamaged, "cut short"),
    "it lacks its last byte": (lambda path: _cut(path, path.stat().st_size - 1), LedgerDamaged, "cut short"),
    "it is cut to its first page": (lambda path: _cut(path, 4096), LedgerDamaged, "cut short"),
    "it is empty": (lambda path: _cut(path, 0), LedgerDamaged, "is empty"),
    "its schema page is nonsense": (lambda path: _overwrite(path, 100, b"\xff" * 3996), LedgerDamaged, "is damaged"),
    "it is another program's": (
        lambda path: (path.unlink(), _sql(path, "CREATE TABLE t (a)")),
        LedgerForeign,
        "another program",
    ),
    "another program has versions too": (
        lambda path: (path.unlink(), _sql(path, "CREATE TABLE schema_version (name TEXT, version TEXT)")),
        LedgerForeign,
        "another program",
    ),
    "it says no version": (lambda path: _sql(path, "DELETE FROM schema_version"), LedgerDamaged, "no schema version"),
    "it says two versions": (lambda path: _sql(path, "INSERT INTO schema_version VALUES (1)"), LedgerDamaged, "no schema version"),
    "a newer gateway wrote it": (
        lambda path: _sql(path, "UPDATE schema_version SET version = 99"),
        LedgerTooNew,
        "update the gateway",
    ),
    "a table is gone": (lambda path: _sql(path, "DROP TABLE commitments"), LedgerDamaged, "without the table commitments"),
    "it is a folder": (lambda path: (path.unlink(), path.mkdir()), LedgerUnavailable, "cannot be opened"),
}


@pytest.mark.parametrize("name", AT_START)
def test_a_ledger_that_is_none_any_more_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    damage, kind, said = AT_START[name]
    path = filled(tmp_path / "ledger.db")
    damage(path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(kind, match=said) as caught:
        Ledger(path, begun=True)

    assert str(path) in str(caught.value)
    assert kind is not LedgerDamaged or ("docs/operations.md" in str(caught.value) and not caught.value.retryable)
    assert not path.is_file() or path.read_bytes() == before


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_page_that_is_nonsense_is_found_before_anything_is_taken_in(tmp_path: Path, part: float) -> None:
    path = filled(tmp_path / "ledger.db")
    _overwrite(path, int(path.stat().st_size * part) // 4096 * 4096, b"\xa5" * 4096)
    with Ledger(path) as ledger:
        with pytest.raises(LedgerDamaged, match="is damaged"):
            ledger.check()
        refuses(ledger)


def test_a_whole_ledger_is_found_whole(tmp_path: Path) -> None:
    with Ledger(filled(tmp_path / "ledger.db"), begun=True) as ledger:
        ledger.check()
        ledger.look()
        assert ledger.damage is None and read_all(ledger) == ROWS


def test_one_that_is_too_large_to_go_through_is_not(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.db")
    _overwrite(path, path.stat().st_size // 2 // 4096 * 4096, b"\xa5" * 4096)
    with Ledger(path) as ledger:
        ledger.check(most_bytes=1000)
        assert ledger.damage is None


def test_a_new_ledger_and_one_that_a_person_moved_away_are_made_anew(tmp_path: Path) -> None:
    for begun in (False, True):
        with Ledger(tmp_path / f"{begun}.db", begun=begun) as ledger:
            assert read_all(ledger) == 0
    (tmp_path / "empty.db").touch()
    with Ledger(tmp_path / "empty.db") as ledger:
        assert read_all(ledger) == 0


WHILE_RUNNING: dict[str, tuple[Callable[[Path], object], str]] = {
    "it is gone": (lambda path: path.unlink(), "is gone"),
    "it is moved away": (lambda path: path.rename(path.with_name("moved")), "is gone"),
    "another is in its place": (
        lambda path: (path.rename(path.with_name("moved")), path.write_bytes(b"x" * 10_000_000)),
        "replaced",
    ),
    "it is cut to nothing": (lambda path: _cut(path, 0), "cut short"),
    "it is cut to half": (lambda path: _cut(path, path.stat().st_size // 2), "cut short"),
    "it lacks its last page": (lambda path: _cut(path, path.stat().st_size - 4096), "cut short"),
}


@pytest.mark.parametrize("name", WHILE_RUNNING)
def test_what_becomes_of_the_file_while_it_is_used_is_seen(tmp_path: Path, name: str) -> None:
    damage, said = WHILE_RUNNING[name]
    path = filled(tmp_path / "ledger.db")
    with Ledger(path) as ledger:
        ledger.look()
        damage(path)
        with pytest.raises(LedgerDamaged, match=said):
            ledger.look()
        refuses(ledger)


def refuses(ledger: Ledger) -> None:
    assert ledger.damage is not None
    with pytest.raises(LedgerDamaged):
        read_all(ledger)
    with pytest.raises(LedgerDamaged):
        ledger.write(_fill)


def test_damage_that_a_reader_meets_stops_the_writer_too(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.db")
    with Ledger(path) as ledger:
        assert ledger.damage is None
        size = path.stat().st_size
        for at in range(size // 4 // 4096 * 4096, size, 4096):
            _overwrite(path, at, b"\xa5" * 4096)
        with pytest.raises(LedgerDamaged, match="is damaged") as caught:
            read_all(ledger)
        assert str(path) in str(caught.value) and "A700" in str(caught.value)
        refuses(ledger)


def test_damage_that_the_writer_meets_stops_the_readers_too(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.db")
    with Ledger(path) as ledger:
        size = path.stat().st_size
        for at in range(size // 4 // 4096 * 4096, size, 4096):
            _overwrite(path, at, b"\xa5" * 4096)
        with pytest.raises(LedgerDamaged):
            ledger.write(lambda connection: connection.execute(text("UPDATE learned SET value = 'y'")))
        refuses(ledger)


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from gateway.ledger import Ledger
from tests.ledger.database.test_damage import _fill
ledger = Ledger(Path(sys.argv[1]))
ledger.write(_fill)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("at", [0, 40, 5000, 100_000])
def test_a_damaged_wal_costs_no_more_than_what_stands_in_it(tmp_path: Path, at: int) -> None:
    """SQLite leaves out what its checksums do not vouch for; the rows that are lost come again from the spool."""
    path = tmp_path / "ledger.db"
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path)], check=False)
    wal = path.with_name("ledger.db-wal")
    assert wal.stat().st_size > at
    _overwrite(wal, at, b"\xa5" * 64)
    try:
        with Ledger(path, begun=True) as ledger:
            ledger.check()
            assert read_all(ledger) in (0, ROWS)
    except LedgerDamaged as error:
        assert str(path) in str(error) and "docs/operations.md" in str(error)


def test_a_wal_of_another_version_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path)], check=False)
    wal = path.with_name("ledger.db-wal")
    head = bytearray(wal.read_bytes()[:32])
    head[4:8] = (3007001).to_bytes(4, "big")
    first = second = 0
    order = ">" if head[3] & 1 else "<"
    for one, two in struct.iter_unpack(f"{order}2L", head[:24]):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    head[24:32] = struct.pack(">2L", first, second)
    _overwrite(wal, 0, bytes(head))

    with pytest.raises(LedgerDamaged, match="is damaged"):
        Ledger(path, begun=True)
